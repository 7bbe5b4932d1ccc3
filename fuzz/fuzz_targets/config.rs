//! `tandem.toml`: any text is read or refused with findings that can be printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::config;

fuzz_target!(|text: &str| {
    // The path of a script may be anything; not one that blocks or never ends.
    if ["/dev", "/proc", "/sys"].iter().any(|dir| text.contains(dir)) {
        return;
    }
    let loaded = config::parse("tandem.toml", text);
    for finding in &loaded.findings {
        assert!(!finding.to_string().is_empty());
    }
    if !loaded.has_errors() {
        let _ = config::to_toml(&loaded.config);
    }
});
