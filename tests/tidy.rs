//! Holds the structure of the house: floors import only downwards, pure cores touch no socket, task or
//! clock, and files keep to a few habits. `src/lib.rs` draws the map this test walks.

use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom; the modules of one line may import each other's line only downwards, so a module
/// imports its own line or one below. `main` is above everything.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["demo", "bench"],
    &["serve"],
    &["http", "simulate"],
    &["routing"],
    &["call"],
    &["tools"],
    &["ari"],
    &["sip", "provider", "audiosocket", "chan_websocket"],
    &["pbx"],
    &["rtp"],
    &["audio"],
    &["store"],
    &["telemetry", "web"],
    &["cost"],
    &["config"],
    &["event"],
    &["id"],
    &["time"],
];

/// The thin shells: everything else below `call/` is a pure core.
const SHELLS: &[&str] = &[
    "sip/carrier/mod",
    "sip/connections",
    "sip/carrier/watch",
    "sip/carrier/trial",
    "sip/endpoint/mod",
    "sip/endpoint/driver",
    "sip/endpoint/handle",
    "sip/endpoint/wire",
    "sip/resolver",
    "sip/tap",
    "sip/tls",
    "sip/ws",
    "sip/udp",
    "sip/tcp",
    "sip/leg",
    "sip/leg/detached",
    "rtp/ports",
    "rtp/media",
    "rtp/pacer",
    "rtp/timer",
    "provider/connect",
    "provider/guarded",
    "provider/lease",
    "provider/stored_keys",
    "provider/openai/socket",
    "provider/openai/mod",
    "provider/scripted/mod",
    "provider/ultravox_sip/mod",
    "provider/ultravox/calls",
    "provider/ultravox/mod",
    "provider/ultravox/socket",
    "provider/mod",
    "pbx/announce",
    "pbx/door",
    "pbx/leg",
    "pbx/media",
    "pbx/visitor",
    "audiosocket/server",
    "audiosocket/wire",
    "chan_websocket/server",
    "chan_websocket/client",
    "chan_websocket/connector",
    "chan_websocket/control",
    "chan_websocket/wire",
    "ari/client",
    "ari/events",
    "ari/shell",
    "ari/control",
    "ari/media",
];

/// Floors made of pure cores and the shells above.
const CORE_FLOORS: &[&str] =
    &["ari", "sip", "provider", "audiosocket", "chan_websocket", "pbx", "rtp", "audio"];

/// What a core must not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "Instant::now",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::thread",
    "std::fs",
    "UnixMs::now",
    "rand::rng()",
    "rand::random",
];

#[test]
fn each_floor_imports_only_floors_below() {
    let mut wrong = Vec::new();
    for file in sources() {
        let from = floor_of(&module(&file));
        let text = production_text(&file);
        for (number, line) in text.lines().enumerate() {
            for imported in imports(line) {
                let Some(to) = FLOORS.iter().position(|floor| floor.contains(&imported.as_str())) else {
                    continue;
                };
                let same = from.is_some_and(|from| FLOORS[from].contains(&imported.as_str()));
                let upwards = from.is_some_and(|from| to < from);
                let sideways = from == Some(to) && same && module(&file).split('/').next() != Some(&imported);
                if upwards || sideways {
                    wrong.push(format!("{}:{}: imports {imported}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point upwards or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    for file in sources() {
        let module = module(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        assert!(floor_of(&module).is_some(), "{module} is on no floor; add it to FLOORS");
    }
}

#[test]
fn pure_cores_name_no_socket_task_or_clock() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module(&file);
        let top = module.split('/').next().unwrap_or_default();
        if !CORE_FLOORS.contains(&top) || SHELLS.contains(&module.as_str()) {
            continue;
        }
        for (number, line) in production_text(&file).lines().enumerate() {
            for name in IMPURE.iter().filter(|name| code(line).contains(**name)) {
                wrong.push(format!("{}:{}: names {name}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "cores that are not pure:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_openai_module_knows_its_json() {
    for file in sources() {
        let module = module(&file);
        if module.starts_with("provider/openai") || module.starts_with("simulate/openai") {
            continue;
        }
        let text = production_text(&file);
        for word in ["\"response.create", "\"input_audio_buffer", "\"conversation.item"] {
            assert!(!text.lines().any(|l| code(l).contains(word)), "{module} knows `{word}`");
        }
    }
}

#[test]
fn only_the_ultravox_module_knows_its_json() {
    for file in sources() {
        let module = module(&file);
        if module.starts_with("provider/ultravox") || module.starts_with("simulate/ultravox") {
            continue;
        }
        let text = production_text(&file);
        for word in ["\"client_tool_", "\"playback_clear_buffer", "\"user_text_message", "\"selectedTools"] {
            assert!(!text.lines().any(|l| code(l).contains(word)), "{module} knows `{word}`");
        }
    }
}

#[test]
fn no_queue_is_unbounded_and_no_module_is_a_drawer() {
    for file in sources() {
        let module = module(&file);
        assert!(!module.split('/').any(|part| part == "utils" || part == "helpers"), "{module}");
        let text = production_text(&file);
        for (number, line) in text.lines().enumerate() {
            assert!(
                !code(line).contains("unbounded_channel"),
                "{}:{} has an unbounded queue",
                file.display(),
                number + 1
            );
        }
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    for file in sources() {
        let text = fs::read_to_string(&file).expect("the file was just listed");
        assert!(text.starts_with("//!"), "{} does not open with `//!`", file.display());
    }
}

/// There are no examples in the documentation that would have to be run: `doctest` is off.
#[test]
fn blocks_in_the_documentation_are_no_rust() {
    for file in sources() {
        let text = fs::read_to_string(&file).expect("the file was just listed");
        let fences = text.lines().filter_map(|line| {
            let line = line.trim_start();
            line.strip_prefix("//!").or_else(|| line.strip_prefix("///"))?.trim_start().strip_prefix("```")
        });
        let untold = fences.step_by(2).find(|language| language.is_empty() || language.starts_with("rust"));
        assert_eq!(untold, None, "{} has an example that nobody runs", file.display());
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The modules of this crate that a line imports.
fn imports(line: &str) -> Vec<String> {
    let line = code(line);
    line.match_indices("crate::")
        .flat_map(|(at, _)| {
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                group.split(['}', ';']).next().unwrap_or_default().split(',').map(first_word).collect()
            } else {
                vec![first_word(rest)]
            }
        })
        .collect()
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn floor_of(module: &str) -> Option<usize> {
    let top = module.split('/').next()?;
    FLOORS.iter().position(|floor| floor.contains(&top))
}

/// `sip/transaction/client_invite` for `src/sip/transaction/client_invite.rs`.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(root()).expect("every source is below src");
    inside.with_extension("").to_string_lossy().replace('\\', "/")
}

/// The text before the tests.
fn production_text(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("the file was just listed");
    match text.find("#[cfg(test)]\nmod ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            // Whole files of tests are as free as test modules.
            let is_test = path.file_stem().is_some_and(|stem| {
                let stem = stem.to_string_lossy();
                stem == "tests" || stem.ends_with("_tests")
            });
            if path.is_dir() && !is_test {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !is_test {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
