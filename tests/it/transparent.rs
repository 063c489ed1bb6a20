//! A request in no arm is byte-identical to a plain proxy's.

use pratfall::chance::Chance;
use pratfall::units::Seed;

use crate::support::{Message, Origin, Stage, everybody, get, listener, ok};

/// Odd requests, the same for the same seed.
fn odd(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let chance = Chance::new(Seed(seed), "odd");
    let mut drawn = 0u64;
    let mut below = move |bound: usize| {
        drawn += 1;
        (chance.bits("odd", &drawn.to_be_bytes()) % bound as u64) as usize
    };
    let fields: [&[u8]; 22] = [
        b"x-a: 1",
        b"X-A: 2",
        b"x-empty:",
        b"x-space:   padded \t ",
        b"x-obs: caf\xe9\xff",
        b"baggage: a=1",
        b"baggage: b=2;p, c=%20",
        b"Baggage: ,,",
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"tracestate: a=b,,c=d",
        b"b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
        b"cookie: a=1; b=2",
        b"cookie: c=3",
        b"connection: x-a",
        b"connection: keep-alive, baggage",
        b"te: trailers, gzip",
        b"keep-alive: timeout=5",
        b"accept-encoding: gzip;q=0, *;q=1",
        b"range: bytes=0-1,-1",
        b"authorization: Basic Og==",
        b"x-pratfall: mine",
        b"x-forwarded-for: 10.0.0.1, [::1]",
    ];
    let targets = ["/", "//a//", "/a%2Fb/%2e%2e/", "/;a=1?b&c==d", "/?", "/a|b{c}", "/x?y=/../z"];
    let bodies = [
        "",
        "content-length: 0\r\n\r\n",
        "content-length: 3\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    (0..count)
        .map(|_| {
            let body = below(bodies.len());
            let method =
                ["GET", "HEAD", "DELETE", "POST", "PROPFIND", "get"][if body == 0 { below(3) } else { 3 + below(3) }];
            let target = targets[below(targets.len())];
            let absolute = if below(8) == 0 { "http://Shop.example:81" } else { "" };
            let mut request = format!("{method} {absolute}{target} HTTP/1.1\r\nHost: Shop.example\r\n").into_bytes();
            for _ in 0..below(7) {
                request.extend_from_slice(fields[below(fields.len())]);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(if body == 0 { b"\r\n" } else { bodies[body].as_bytes() });
            request
        })
        .collect()
}

async fn through(stage: &Stage, origin: &Origin, requests: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut caller = stage.front().await;
    let mut seen = Vec::new();
    for request in requests {
        caller.send(request).await;
        let answer = caller.answer(request.starts_with(b"HEAD")).await;
        assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(request));
        let Message { head, rest, .. } = origin.last();
        seen.push((head, rest));
    }
    seen
}

#[tokio::test]
async fn what_is_in_no_arm_reaches_the_upstream_as_without_a_run() {
    let origin = Origin::replying(|request| match request.head.starts_with(b"HEAD") {
        true => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec(),
        false => ok("hello"),
    })
    .await;
    let stage = Stage::start(vec![listener("front", origin.address), listener("other", origin.address)], 1).await;
    let requests = odd(7, 300);
    let plain = through(&stage, &origin, &requests).await;

    // A bystander: it matches, and is in no arm.
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.treatment = vec!["0%".parse().expect("a share")];
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    assert!(through(&stage, &origin, &requests).await == plain);
    drop(run);

    // Somebody else: it does not match.
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.matches = crate::support::stage::matching("/nowhere");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    assert!(through(&stage, &origin, &requests).await == plain);
    drop(run);

    // A listener that the run has nothing to do with.
    let mut experiment = everybody("error: { status: 503 }");
    (experiment.slice.at, experiment.inject.at) = ("other".to_owned(), "other".to_owned());
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    assert!(through(&stage, &origin, &requests).await == plain);

    // The fault's own listener, without the run's mark.
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.at = "other".to_owned();
    drop(run);
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    assert!(through(&stage, &origin, &requests).await == plain);
    drop(run);
    assert!(through(&stage, &origin, &requests).await == plain, "after the run");
}

#[tokio::test]
async fn what_is_in_an_arm_differs_by_its_member_of_the_baggage_and_nothing_else() {
    let origin = Origin::replying(|request| match request.head.starts_with(b"HEAD") {
        true => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec(),
        false => ok("hello"),
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let requests: Vec<Vec<u8>> = odd(8, 300)
        .into_iter()
        .filter(|request| !request.windows(21).any(|bytes| bytes == b"keep-alive, baggage\r\n"))
        .collect();
    let plain = through(&stage, &origin, &requests).await;
    let _run = stage.enroll(everybody("latency: { delay: 1s }"));
    let marked = through(&stage, &origin, &requests).await;
    let without = |head: &[u8]| {
        let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        let mut lines: Vec<_> = lines.filter(|line| !line.starts_with(b"baggage:")).collect();
        lines.sort();
        lines
    };
    let ours = |head: &[u8]| String::from_utf8_lossy(head).contains("\r\nbaggage: pratfall=");
    for ((plain, body), (marked, same)) in plain.iter().zip(&marked) {
        assert_eq!((without(plain), body), (without(marked), same));
        assert!(ours(marked) && !ours(plain), "{}", String::from_utf8_lossy(marked));
    }
    let answer = stage.front().await.ask(get("/", "")).await;
    assert_eq!(answer.field("x-pratfall"), None);
}
