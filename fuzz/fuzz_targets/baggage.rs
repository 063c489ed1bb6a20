//! The baggage of strangers: ours is put in, found again and taken out, and theirs stays as it is.
#![no_main]

use arbitrary::Arbitrary;
use http::header::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pratfall::measure::Arm;
use pratfall::proxy::context::{BAGGAGE, Mark, member, read, strip, write};
use pratfall_fuzz::lines;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    token: u64,
    op: u128,
    index: u64,
    intended: u64,
    kind: u8,
    lines: &'a [u8],
}

impl Input<'_> {
    fn mark(&self) -> Mark {
        match self.kind % 3 {
            0 => Mark::Arm { token: self.token, arm: Arm::Treatment, op: self.op },
            1 => Mark::Arm { token: self.token, arm: Arm::Control, op: self.op },
            _ => Mark::Own { token: self.token, index: self.index, intended: self.intended },
        }
    }
}

fn is_ours(member: &[u8]) -> bool {
    member.split(|byte| *byte == b'=').next().is_some_and(|name| name.trim_ascii() == b"pratfall")
}

/// The members that are not ours, as they are on the wire but for the space around them.
fn theirs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let members = lines(headers, "baggage").into_iter().flat_map(|line| line.split(|byte| *byte == b','));
    let theirs = members.filter(|member| !is_ours(member)).map(<[u8]>::trim_ascii);
    theirs.filter(|member| !member.is_empty()).map(<[u8]>::to_vec).collect()
}

fuzz_target!(|input: Input<'_>| {
    let mut came = HeaderMap::new();
    for line in input.lines.split(|byte| *byte == b'\n') {
        if let Ok(line) = HeaderValue::from_bytes(line.trim_ascii()) {
            came.append(BAGGAGE, line);
        }
    }
    let (before, has_ours) =
        (theirs(&came), lines(&came, "baggage").iter().any(|line| line.split(|b| *b == b',').any(is_ours)));

    let mut stripped = came.clone();
    strip(&mut stripped);
    assert_eq!(theirs(&stripped), before, "stripping takes nothing of theirs");
    assert_eq!(read(&stripped), None);
    assert!(!lines(&stripped, "baggage").iter().any(|line| line.split(|byte| *byte == b',').any(is_ours)));
    if !has_ours {
        assert_eq!(stripped, came, "nothing to strip, nothing to change");
    }
    let mut again = stripped.clone();
    strip(&mut again);
    assert_eq!(again, stripped, "once is enough");

    // What is believed of theirs says the same when it is ours.
    if let Some(mark) = read(&came) {
        let mut alone = HeaderMap::new();
        assert!(write(&mut alone, &mark));
        assert_eq!(read(&alone), Some(mark));
    }

    let mark = input.mark();
    let mut marked = came.clone();
    if write(&mut marked, &mark) {
        let line = lines(&marked, "baggage");
        assert_eq!(line.len(), 1, "one line");
        assert!(line[0].starts_with(mark.member().as_bytes()), "ours is the first");
        // W3C Baggage, 3.3.2: what every platform must be able to carry.
        assert!(line[0].len() <= 8192 && line[0].split(|byte| *byte == b',').count() <= 64);
        assert_eq!(read(&marked), Some(mark), "it is found again");
        assert_eq!(theirs(&marked), before, "theirs are all there, in their order");
        assert_eq!(member(&marked, "pratfall"), mark.member().strip_prefix("pratfall="));
        strip(&mut marked);
        assert_eq!(theirs(&marked), before);
        assert_eq!(read(&marked), None);
    } else {
        assert_eq!(theirs(&marked), before, "without room theirs stay");
        assert_eq!(read(&marked), None);
    }
});
