//! HTTP/2 frame by frame: floods end their connection or are borne, and others are served as before.

use crate::support::{Origin, Stage, Wire, get, listener, until};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113, 7.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET http://a/` in HPACK without any table: `:method`, `:scheme` and `:path` are known, `:authority` is literal.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'a'];

/// A caller that has said how HTTP/2 begins.
async fn begun(stage: &Stage) -> Wire {
    let mut caller = stage.front().await;
    caller.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()).await;
    caller
}

/// A frame that came.
#[derive(Debug)]
struct Came {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Came {
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// All frames until one is found, or the connection is over.
async fn frames_until(caller: &mut Wire, found: impl Fn(&Came) -> bool) -> Vec<Came> {
    let mut all = Vec::new();
    let mut seen = Vec::new();
    loop {
        while seen.len() >= 9 {
            let length = usize::from(seen[0]) << 16 | usize::from(seen[1]) << 8 | usize::from(seen[2]);
            if seen.len() < 9 + length {
                break;
            }
            let rest = seen.split_off(9 + length);
            let stream = u32::from_be_bytes(seen[5..9].try_into().expect("four bytes"));
            let came = Came { kind: seen[3], flags: seen[4], stream, payload: seen[9..].to_vec() };
            seen = rest;
            let last = found(&came);
            all.push(came);
            if last {
                return all;
            }
        }
        match caller.some().await {
            Some(more) => seen.extend(more),
            None => return all,
        }
    }
}

async fn goaway(caller: &mut Wire) -> Option<u32> {
    frames_until(caller, |came| came.kind == GOAWAY).await.last().filter(|came| came.kind == GOAWAY).map(Came::code)
}

/// One that hangs for ever where it is asked to, and answers all others.
async fn origin() -> Origin {
    Origin::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            if request.field("host").as_deref() == Some("a") {
                return visit.ended().await;
            }
            visit.wire.send(crate::support::ok("hello")).await;
        }
    })
    .await
}

async fn others_go_on(stage: &Stage) {
    assert_eq!(stage.front().await.ask(get("/", "")).await.text(), "hello");
    assert_eq!(stage.h2("front").await.get("/").await.expect("an answer").1, "hello");
}

#[tokio::test]
async fn more_streams_than_are_taken_are_refused_and_the_others_live() {
    let origin = origin().await;
    let mut front = listener("front", origin.address);
    front.bounds.streams = 2;
    let stage = Stage::start(vec![front], 1).await;
    let mut caller = begun(&stage).await;
    // The bound holds once the caller has acknowledged it.
    let settings = frames_until(&mut caller, |came| came.kind == SETTINGS && came.flags == 0).await;
    let told = settings.last().unwrap().payload.chunks(6).any(|one| one == [0, 3, 0, 0, 0, 2]);
    assert!(told, "SETTINGS_MAX_CONCURRENT_STREAMS is told: {settings:?}");
    caller.send(frame(SETTINGS, 1, 0, &[])).await;
    for stream in [1, 3, 5] {
        caller.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)).await;
    }
    let came = frames_until(&mut caller, |came| came.kind == RST_STREAM).await;
    let refused = came.last().expect("a frame");
    assert_eq!((refused.kind, refused.stream, refused.code()), (RST_STREAM, 5, REFUSED_STREAM));
    origin.until_asked(2).await;
    others_go_on(&stage).await;
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection() {
    let origin = origin().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = begun(&stage).await;
    let flood: Vec<u8> = (0..500)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, END_STREAM | END_HEADERS, stream, GET), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())]
                .concat()
        })
        .collect();
    let _ = caller.try_send(&flood).await;
    assert_eq!(goaway(&mut caller).await, Some(ENHANCE_YOUR_CALM));
    until("it is over", || stage.proxy.connections() == 0).await;
    others_go_on(&stage).await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_its_connection() {
    let origin = origin().await;
    let stage = Stage::before(origin.address).await;
    for (what, piece) in
        [("empty", vec![]), ("large", [vec![0, 1, b'x', 0x7f, 0xfb, 0x7e], vec![b'a'; 16_384 - 6]].concat())]
    {
        let mut caller = begun(&stage).await;
        caller.send(frame(HEADERS, END_STREAM, 1, GET)).await;
        let continued = frame(CONTINUATION, 0, 1, &piece);
        for _ in 0..200 {
            if caller.try_send(&continued).await.is_err() {
                break;
            }
        }
        let code = goaway(&mut caller).await;
        assert!(code.is_some(), "{what}: it goes on");
        until("it is over", || stage.proxy.connections() == 0).await;
        others_go_on(&stage).await;
        until("they are over", || stage.proxy.connections() == 0).await;
    }
    assert!(origin.seen().iter().all(|asked| asked.field("host").as_deref() != Some("a")), "it was sent on");
}

#[tokio::test]
async fn floods_of_settings_and_pings_are_borne() {
    let origin = origin().await;
    let stage = Stage::before(origin.address).await;
    for flood in [frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), frame(PING, 0, 0, &[0; 8])] {
        let mut caller = begun(&stage).await;
        // It never reads: what would be acknowledged must not pile up here.
        let flood = flood.repeat(100_000);
        let mut flooding = tokio::spawn(async move {
            let sent = caller.try_send(&flood).await;
            (caller, sent)
        });
        for _ in 0..5 {
            others_go_on(&stage).await;
        }
        if let Ok(Ok((caller, _))) = tokio::time::timeout(std::time::Duration::from_millis(500), &mut flooding).await {
            drop(caller);
        }
        flooding.abort();
        others_go_on(&stage).await;
    }
}
