//! `resources.toml`, which also comes over HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::config::resources;

fuzz_target!(|text: &str| {
    let (_, findings) = resources::parse("resources.toml", text, None);
    for finding in &findings {
        assert!(!finding.to_string().is_empty());
    }
});
