//! The keys that requests bring along: trace ids, cookies, members of the baggage.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pratfall::proxy::brought::{Brought, cookie};
use pratfall::proxy::context::member;
use pratfall_fuzz::{headers, lines};

/// W3C Trace Context, 3.2.2, version 00.
fn traceparent(value: &[u8]) -> Option<&[u8]> {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&[u8]> = value.split(|byte| *byte == b'-').collect();
    let [b"00", id, parent, flags] = parts[..] else { return None };
    let fits = id.len() == 32 && parent.len() == 16 && flags.len() == 2 && hex(id) && hex(parent) && hex(flags);
    (fits && id.iter().any(|byte| *byte != b'0')).then_some(id)
}

fuzz_target!(|text: &[u8]| {
    let headers = headers(text);
    let key = Brought::of(&headers).trace();
    if let Some(key) = key {
        // All who bring the same key share an arm: a key that says nothing would put strangers together.
        assert!(!key.is_empty(), "no key");
        assert!(key.iter().any(|byte| *byte != b'0'), "an id of zeros is none");
        let brought = ["traceparent", "b3", "x-b3-traceid", "x-request-id"];
        let within = |line: &[u8]| line.windows(key.len()).any(|part| part == key);
        assert!(brought.iter().flat_map(|name| lines(&headers, name)).any(within), "it is one that came");
    }
    if let [line] = lines(&headers, "traceparent")[..]
        && let Some(id) = traceparent(line)
    {
        assert_eq!(key, Some(id), "a well-formed traceparent is what counts");
    }
    if let [id] = lines(&headers, "x-request-id")[..]
        && !id.is_empty()
        && id.iter().any(|byte| *byte != b'0')
    {
        assert!(key.is_some(), "there is a key, and none is found");
    }

    for name in ["a", "session"] {
        let found = cookie(&headers, name);
        let pairs = lines(&headers, "cookie").into_iter().flat_map(|line| line.split(|byte| *byte == b';'));
        let wanted = pairs.map(<[u8]>::trim_ascii_start).find_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            (&pair[..at] == name.as_bytes()).then(|| &pair[at + 1..])
        });
        assert_eq!(found, wanted, "the first cookie of the name");
        if let Some(value) = member(&headers, name) {
            assert!(!value.contains(','), "one member");
        }
    }
});
