//! The load against real sockets. Counts are compared, never speeds.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// A server on a port of its own: what it saw, and how often somebody connected.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Each connection is served by `serve`, which notes what it sees.
    async fn start<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream, usize, Arc<Mutex<Vec<String>>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (notes, counter) = (Arc::clone(&seen), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(stream, number, Arc::clone(&notes)));
            }
        });
        Self { address, seen, connections, _task: AbortOnDropHandle::new(task) }
    }

    /// An ordinary server whose answers have a body to be read; one that does not keep connections ends each after its
    /// first request, with `connection: close` or GOAWAY.
    async fn ordinary(keeps: bool) -> Self {
        Self::start(move |stream, _, seen| async move {
            let served = Arc::new(Notify::new());
            let after = Arc::clone(&served);
            let service = service_fn(move |request: Request<Incoming>| {
                let (seen, served) = (Arc::clone(&seen), Arc::clone(&served));
                async move {
                    let baggage = request.headers().get("baggage").map(|value| value.to_str().unwrap().to_owned());
                    let line = format!("{} {} {}", request.method(), request.uri().path(), baggage.unwrap_or_default());
                    let _ = request.into_body().collect().await;
                    seen.lock().unwrap().push(line);
                    served.notify_one();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; 100_000]))))
                }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = connection.as_mut() => return,
                () = after.notified(), if !keeps => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        })
        .await
    }

    /// A server that listens, and says nothing ever.
    async fn hanging() -> Self {
        Self::start(|stream, _, _| async move {
            let _stream = stream;
            pending::<()>().await;
        })
        .await
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The rest of a request's head, or `None` at the end of the connection.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap().lines().next().unwrap().to_owned())
}

fn traffic(yaml: &str) -> Traffic {
    serde_yaml::from_str(yaml).unwrap()
}

fn load(yaml: &str, target: SocketAddr) -> Load {
    Load::new(&traffic(yaml), target, target.to_string(), Seed(7)).unwrap()
}

/// Runs the load until its n-th request and returns the counts with the intended starts, as distances from the first.
async fn run(load: Load, n: u64) -> (LoadCounts, Vec<Duration>) {
    let (stop, tally, intended) = (CancellationToken::new(), Arc::new(LoadTally::default()), Mutex::new(Vec::new()));
    let mark = |index, at: Instant| {
        intended.lock().unwrap().push(at);
        if index + 1 == n {
            stop.cancel();
        }
        format!("pratfall=token.t.{index}")
    };
    load.run(stop.clone(), mark, Arc::clone(&tally)).await;
    let intended = intended.into_inner().unwrap();
    (tally.snapshot(), intended.iter().map(|at| *at - intended[0]).collect())
}

fn all_answered(n: u64) -> LoadCounts {
    LoadCounts { sent: n, answered: n, ..LoadCounts::default() }
}

#[tokio::test]
async fn every_request_of_the_schedule_arrives_with_its_mark() {
    let server = Server::ordinary(true).await;
    let load = load("{ rate: 200/s, requests: [{ path: '/checkout/{1..500}' }] }", server.address);
    let (counts, intended) = run(load, 400).await;
    assert_eq!(counts, all_answered(400));
    assert_eq!(intended, (0..400).map(|n| Duration::from_millis(5 * n)).collect::<Vec<_>>());

    let mut marks: Vec<_> = server.seen().iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    let mut expected: Vec<_> = (0..400).map(|index| format!("pratfall=token.t.{index}")).collect();
    marks.sort();
    expected.sort();
    assert_eq!(marks, expected);
    assert!(server.seen().iter().all(|line| line.starts_with("GET /checkout/")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_as_a_task_of_a_runtime_with_several_threads() {
    let server = Server::ordinary(true).await;
    let load = load("{ rate: 2000/s, arrivals: poisson, requests: [{ path: /a }] }", server.address);
    assert_eq!(tokio::spawn(run(load, 400)).await.unwrap().0, all_answered(400));
    assert_eq!(server.seen().len(), 400);
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::ordinary(true).await;
    let (tally, sender) = (LoadTally::default(), Sender::new(server.address, false));
    for index in 0..20 {
        sender.send(request(server.address, 1, "GET", index), &tally).await;
    }
    assert_eq!((tally.snapshot().answered, server.connections()), (20, 1));
}

#[tokio::test]
async fn many_requests_share_one_connection_over_http_2() {
    let server = Server::ordinary(true).await;
    let load = load("{ rate: 2000/s, http: 2, requests: [{ method: POST, path: /a, body: b }] }", server.address);
    assert_eq!(run(load, 90).await.0, all_answered(90));
    assert_eq!((server.seen().len(), server.connections()), (90, 1));
    assert!(server.seen().contains(&"POST /a pratfall=token.t.89".to_owned()));
}

#[tokio::test]
async fn a_server_that_closes_every_connection_gets_every_request() {
    let server = Server::ordinary(false).await;
    let load = load("{ rate: 2000/s, requests: [{ path: /a }] }", server.address);
    assert_eq!(run(load, 200).await.0, all_answered(200));
    assert_eq!((server.seen().len(), server.connections()), (200, 200));
}

#[tokio::test]
async fn a_server_that_says_goaway_is_connected_again() {
    let server = Server::ordinary(false).await;
    let (tally, sender) = (LoadTally::default(), Sender::new(server.address, true));
    for index in 0..50 {
        sender.send(request(server.address, 2, "GET", index), &tally).await;
    }
    assert_eq!((tally.snapshot().answered, tally.snapshot().failed), (50, 0));
    assert!(server.connections() > 1);
}

#[tokio::test]
async fn a_server_that_hangs_does_not_keep_the_next_requests_from_leaving() {
    for http in [1, 2] {
        let server = Server::hanging().await;
        let mut load = load(&format!("{{ rate: 2000/s, http: {http}, requests: [{{ path: /a }}] }}"), server.address);
        load.grace = Duration::from_millis(20);
        let (counts, _) = run(load, 200).await;
        assert_eq!(counts, LoadCounts { sent: 200, ..LoadCounts::default() }, "HTTP/{http}");
    }
}

#[tokio::test]
async fn what_is_due_while_too_many_are_under_way_is_shed_and_counted() {
    let server = Server::hanging().await;
    let mut load = load("{ rate: 2000/s, requests: [{ path: /a }] }", server.address);
    (load.most, load.grace) = (3, Duration::from_millis(20));
    let (stop, tally) = (CancellationToken::new(), Arc::new(LoadTally::default()));
    let running = tokio::spawn(load.run(stop.clone(), |_, _| String::new(), Arc::clone(&tally)));
    let due = || tally.snapshot().sent + tally.snapshot().shed;
    while due() < 8 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!((tally.snapshot().sent, tally.snapshot().shed), (3, due() - 3));
}

#[tokio::test]
async fn a_refused_connection_is_a_failed_request() {
    for http in [1, 2] {
        // Bound, so that nobody else gets the port, but not listening.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let target = socket.local_addr().unwrap();
        let load = load(&format!("{{ rate: 2000/s, http: {http}, requests: [{{ path: /a }}] }}"), target);
        let (counts, _) = run(load, 100).await;
        assert_eq!(counts, LoadCounts { sent: 100, failed: 100, ..LoadCounts::default() }, "HTTP/{http}");
    }
}

#[tokio::test]
async fn requests_under_way_at_the_end_may_finish() {
    let (told, tell) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked, answer) = (Arc::clone(&told), Arc::clone(&tell));
    let server = Server::start(move |mut stream, _, _| {
        let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
        async move {
            head(&mut stream).await.unwrap();
            asked.notify_one();
            answer.notified().await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let (stop, tally) = (CancellationToken::new(), Arc::new(LoadTally::default()));
    let load = load("{ rate: 1/h, requests: [{ path: /a }] }", server.address);
    let running = tokio::spawn(load.run(stop.clone(), |_, _| String::new(), Arc::clone(&tally)));
    told.notified().await;
    stop.cancel();
    tell.notify_one();
    running.await.unwrap();
    assert_eq!(tally.snapshot(), all_answered(1));
}

fn request(target: SocketAddr, http: u8, method: &str, index: u64) -> Request<Full<Bytes>> {
    let traffic = traffic(&format!("{{ rate: 1/s, http: {http}, requests: [{{ method: {method}, path: /a }}] }}"));
    checked(&traffic, &target.to_string().parse().unwrap(), Seed(7)).unwrap().1.nth(index, "").unwrap()
}

/// Sends twice to a server that answers a connection's first request, reads its second, says `last` and closes.
async fn second_on_a_dying_connection(method: &'static str, last: &'static [u8]) -> (u64, u64, Vec<String>) {
    let server = Server::start(move |mut stream, number, seen| async move {
        let line = head(&mut stream).await.unwrap();
        seen.lock().unwrap().push(format!("{number}: {line}"));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        if let Some(line) = head(&mut stream).await {
            seen.lock().unwrap().push(format!("{number}: {line}"));
            let _ = stream.write_all(last).await;
        }
    })
    .await;
    let (tally, sender) = (LoadTally::default(), Sender::new(server.address, false));
    for _ in 0..2 {
        sender.send(request(server.address, 1, method, 0), &tally).await;
    }
    (tally.snapshot().answered, tally.snapshot().failed, server.seen())
}

#[tokio::test]
async fn a_get_that_met_a_dead_connection_is_sent_once_more_on_a_fresh_one() {
    let (answered, failed, seen) = second_on_a_dying_connection("GET", b"").await;
    assert_eq!((answered, failed), (2, 0));
    assert_eq!(seen, ["0: GET /a HTTP/1.1", "0: GET /a HTTP/1.1", "1: GET /a HTTP/1.1"]);
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let (answered, failed, seen) = second_on_a_dying_connection("POST", b"").await;
    assert_eq!((answered, failed), (1, 1));
    assert_eq!(seen, ["0: POST /a HTTP/1.1", "0: POST /a HTTP/1.1"]);
}

#[tokio::test]
async fn nothing_is_sent_again_after_the_first_byte_of_an_answer() {
    let (answered, failed, seen) = second_on_a_dying_connection("GET", b"HTTP/1.1 2").await;
    assert_eq!((answered, failed), (1, 1));
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_reset_stream_is_not_sent_again() {
    let server = Server::start(|stream, _, seen| async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let mut seen = seen.lock().unwrap();
            seen.push(request.uri().path().to_owned());
            // An error of a service resets its stream and nothing else.
            let answer = if seen.len() == 1 { Ok(Response::new(Full::<Bytes>::default())) } else { Err("reset") };
            ready(answer)
        });
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let (tally, sender) = (LoadTally::default(), Sender::new(server.address, true));
    for index in 0..2 {
        sender.send(request(server.address, 2, "GET", index), &tally).await;
    }
    assert_eq!((tally.snapshot().answered, tally.snapshot().failed), (1, 1));
    assert_eq!((server.seen().len(), server.connections()), (2, 1));
}

#[test]
fn traffic_that_cannot_be_sent_is_refused_with_every_problem() {
    for (yaml, expected) in [
        ("{ rate: 5/s, requests: [{ path: /a }] }", ""),
        ("{ command: [npm, run, load] }", ""),
        (
            "{}",
            "traffic has no rate: write how many requests are sent, as in `rate: 50/s`\ntraffic has no requests: write what is sent, as in `requests: [{ path: /checkout/7 }]`",
        ),
        (
            "{ rate: 5/s, command: [x] }",
            "a `command` makes the traffic by itself: leave out either it or `rate` and `requests`",
        ),
        (
            "{ rate: 5/s, http: 3, requests: [{ path: /a, weight: 0 }] }",
            "HTTP/3 is not spoken here: write `http: 1` or `http: 2`\nevery request has weight 0, so none can be drawn: give one of them a weight of 1 or more",
        ),
        (
            "{ rate: 5/s, requests: [{ path: /a }, { path: b }] }",
            "requests[1].path: a path starts with `/`, as in `/b`",
        ),
    ] {
        let found: Vec<_> = problems(&traffic(yaml)).iter().map(ToString::to_string).collect();
        assert_eq!(found.join("\n"), expected, "{yaml}");
    }
    let target = "127.0.0.1:80".parse().unwrap();
    let no_host = Load::new(&traffic("{ rate: 1/s, requests: [{ path: /a }] }"), target, "a b".to_owned(), Seed(1));
    assert_eq!(no_host.unwrap_err(), LoadError::Authority("a b".to_owned()));
    let command = Load::new(&traffic("{ command: [npm] }"), target, "front".to_owned(), Seed(1));
    assert_eq!(command.unwrap_err(), LoadError::Command);
}
