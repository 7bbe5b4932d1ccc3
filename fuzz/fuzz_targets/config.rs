//! `tandem.toml`: any text is read or refused with findings that can be printed.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tandem::config::{self, Sources};

fuzz_target!(|text: &str| {
    // A certificate's path may be anything; not one that blocks or never ends.
    if ["/dev", "/proc", "/sys"].iter().any(|dir| text.contains(dir)) {
        return;
    }
    let path = path();
    if std::fs::write(path, text).is_err() {
        return;
    }
    let loaded = config::load(&Sources { file: Some(path.clone()), ..Sources::default() });
    for finding in &loaded.findings {
        assert!(!finding.to_string().is_empty());
    }
    if !loaded.has_errors() {
        let _ = config::to_toml(&loaded.config);
    }
});

fn path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
        dir.join(format!("tandem-fuzz-{}.toml", std::process::id()))
    })
}
