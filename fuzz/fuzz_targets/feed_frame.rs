//! What a client of the live feed sends, one frame per line; the answers are bounded and are JSON.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tandem::http::feed::session::{Request, Session};

fuzz_target!(|text: &str| {
    let now = Instant::now();
    let mut session = Session::new(now, Arc::from("1"), "s", "2026-01-01T00:00:00Z", Duration::from_secs(20));
    for line in text.split('\n').take(64) {
        session.client_text(now, line);
        let mut requests = 0;
        while let Some(request) = session.next_request() {
            requests += 1;
            match request {
                Request::Subscribe { topic, since, .. } => {
                    assert_eq!(topic.to_string().parse().as_ref(), Ok(&topic));
                    session.subscribed(topic, since, 7, None);
                }
                Request::Command { cmd_id, .. } => session.reply(&cmd_id, Ok(())),
                Request::Close(code, _) => assert!(code >= 1000),
            }
        }
        assert!(requests <= 2, "one frame asks for one thing");
        if let Some((topic, _)) = session.wants_page() {
            session.page(&topic, &[]);
        }
        while let Some(frame) = session.next_frame() {
            assert!(frame.starts_with('{') && frame.ends_with('}'));
        }
    }
});
