//! The script file of the embedded provider.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::provider::scripted::script::Script;

fuzz_target!(|text: &str| {
    match Script::parse(text) {
        Ok(script) => {
            let _ = script.render(|_| Ok(vec![0; 480]), |words| vec![0; words.len()]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
