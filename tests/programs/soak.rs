//! A minute, or ten with `PRATFALL_LONG=1`, in which everything around a serving proxy misbehaves: its upstream refuses,
//! resets, stalls and comes back, callers leave at random moments, reloads come in between. Whatever a caller saw was
//! somebody else's doing, and afterwards nothing is left behind.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, select};
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pratfall::chance::Chance;
use pratfall::units::Seed;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::flapping::{Deed, PATIENCE, Upstream, length, pattern};
use crate::support::{Home, Pratfall, SOON, alone, ask, free_port, wait_for};

const SEED: u64 = 23;

/// How much more memory of its own the process may have in its later half than in its earlier: the allocator keeps now more,
/// now less of what was freed, by megabytes. A kilobyte that every request leaves behind would be ten more in each quarter.
const MEMORY_GROWTH: u64 = 6 << 20;

type Upload = StreamBody<Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send>>>;

/// A connection of a caller, of either protocol.
enum Connection {
    One(http1::SendRequest<Upload>),
    Two(http2::SendRequest<Upload>),
}

/// What a caller did not want to see.
enum Wrong {
    /// The exchange failed, and said so: perhaps somebody else's doing.
    Failed(String),
    /// It looked like an answer and was another: nobody else's doing, whatever the upstream did.
    Lied(String),
}

/// What the callers saw, in sums; and everything that nobody else did.
#[derive(Debug, Default)]
struct Seen {
    whole: AtomicU64,
    left: AtomicU64,
    excused: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Callers that come again and again until they are told that it is over.
#[derive(Clone)]
struct Callers {
    front: u16,
    upstream: Upstream,
    seen: Arc<Seen>,
    ids: Arc<AtomicU64>,
}

impl Callers {
    fn is_over(&self) -> bool {
        self.upstream.over.load(Ordering::Relaxed)
    }

    fn next(&self) -> (u64, impl Fn(&str) -> f64 + use<>) {
        let (id, chance) = (self.ids.fetch_add(1, Ordering::Relaxed), self.upstream.chance);
        (id, move |what: &str| chance.draw(what, &id.to_be_bytes()))
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.front)).await.expect("the proxy takes connections");
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// One request at a time; whoever leaves takes the connection along, and so does whatever went wrong.
    async fn over_http1(self) {
        while !self.is_over() {
            let (sender, connection) = http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
            let driving = tokio::spawn(connection);
            let mut connection = Connection::One(sender);
            while !self.is_over() {
                let (id, draw) = self.next();
                let whole = match draw("leaves") < 0.1 {
                    true => self.leave(self.exchange(&mut connection, id), &draw).await == Some(true),
                    false => self.exchange(&mut connection, id).await,
                };
                sleep(Duration::from_secs_f64(0.02 * draw("thinks"))).await;
                if !whole {
                    break;
                }
            }
            drop(connection);
            driving.abort();
        }
    }

    /// Several requests at a time on one connection; some are given up, and sometimes all of them with the connection.
    async fn over_http2(self) {
        while !self.is_over() {
            let stream = TokioIo::new(self.connect().await);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            let driving = tokio::spawn(connection);
            while !self.is_over() {
                let (_, draw) = self.next();
                let one = async || {
                    let ((id, draw), mut connection) = (self.next(), Connection::Two(sender.clone()));
                    if draw("leaves") < 0.1 {
                        self.leave(self.exchange(&mut connection, id), &draw).await;
                    } else {
                        self.exchange(&mut connection, id).await;
                    }
                };
                let all = join_all((0..6).map(|_| one()));
                if draw("leaves") < 0.1 {
                    self.leave(all, &draw).await;
                    break;
                }
                all.await;
                sleep(Duration::from_secs_f64(0.02 * draw("thinks"))).await;
            }
            drop(sender);
            driving.abort();
        }
    }

    /// Gives something up after a moment, unless it is over before.
    async fn leave<T>(&self, what: impl Future<Output = T>, draw: &impl Fn(&str) -> f64) -> Option<T> {
        let moment = sleep(Duration::from_secs_f64(0.03 * draw("moment").powi(2)));
        let (what, moment) = (std::pin::pin!(what), std::pin::pin!(moment));
        match select(what, moment).await {
            futures_util::future::Either::Left((done, _)) => Some(done),
            futures_util::future::Either::Right(_) => {
                self.seen.left.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Asks and compares; whether the connection is good for another request.
    async fn exchange(&self, connection: &mut Connection, id: u64) -> bool {
        let began = Instant::now();
        let answer = timeout(2 * SOON, self.ask(connection, id)).await;
        let (wrong, lied) = match answer.unwrap_or_else(|_| Err(Wrong::Lied("no end to it".to_owned()))) {
            Ok(()) => {
                self.seen.whole.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Err(Wrong::Failed(wrong)) => (wrong, false),
            Err(Wrong::Lied(wrong)) => (wrong, true),
        };
        let account = self.upstream.account.lock().unwrap();
        if !lied && (account.misdeeds.contains_key(&id) || account.was_away(began, Instant::now())) {
            self.seen.excused.fetch_add(1, Ordering::Relaxed);
        } else {
            let deed = Deed::of(&self.upstream.chance, id);
            let protocol = if matches!(connection, Connection::One(_)) { "HTTP/1.1" } else { "HTTP/2" };
            self.seen.wrong.lock().unwrap().push(format!(
                "{id} over {protocol}, after {:?}: {wrong}; the upstream was to {deed:?}",
                began.elapsed()
            ));
        }
        false
    }

    async fn ask(&self, connection: &mut Connection, id: u64) -> Result<(), Wrong> {
        let told = |error: hyper::Error| Wrong::Failed(format!("{error:?}"));
        let answer = match connection {
            Connection::One(sender) => sender.send_request(self.request(id, "")).await.map_err(told)?,
            Connection::Two(sender) => {
                sender.ready().await.map_err(told)?;
                sender.send_request(self.request(id, "http://soak.example")).await.map_err(told)?
            }
        };
        self.compare(id, answer).await
    }

    fn request(&self, id: u64, origin: &str) -> Request<Upload> {
        let draw = |what| self.upstream.chance.draw(what, &id.to_be_bytes());
        let upload = if draw("uploads") < 0.3 { (draw("upload") * 100_000.0) as usize } else { 0 };
        let request = Request::builder().uri(format!("{origin}/soak/{id}")).header("host", "soak.example");
        let pieces = if upload == 0 { Vec::new() } else { vec![upload / 2, upload - upload / 2] };
        // With a breath between, in which the caller may leave.
        let body = stream::unfold((pieces.into_iter(), false), move |(mut pieces, begun)| async move {
            let piece = pieces.next()?;
            if begun {
                sleep(Duration::from_millis(2)).await;
            }
            Some((Ok(Frame::data(pattern(id, piece))), (pieces, true)))
        });
        let request = match upload {
            0 => request,
            upload => request.method(Method::POST).header("content-length", upload),
        };
        request.body(StreamBody::new(Box::pin(body) as Pin<Box<_>>)).unwrap()
    }

    async fn compare(&self, id: u64, answer: Response<Incoming>) -> Result<(), Wrong> {
        let (head, mut body) = answer.into_parts();
        let mark = head.headers.get("x-pratfall").map_or("", |mark| mark.to_str().unwrap());
        let mut came = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Wrong::Failed(format!("in the body: {error:?}")))?;
            came.extend_from_slice(&frame.into_data().unwrap());
        }
        if mark.starts_with("proxy; error=") && matches!(head.status.as_u16(), 502 | 504) {
            return Err(Wrong::Failed(format!("{}, {mark}", head.status)));
        }
        let status = if Deed::of(&self.upstream.chance, id) == Deed::AnswerWithError { 503 } else { 200 };
        let wanted = pattern(id, length(&self.upstream.chance, id));
        if head.status != status || !mark.is_empty() || came != wanted {
            let told = format!("{} `{mark}` with {} of {} bytes", head.status, came.len(), wanted.len());
            return Err(Wrong::Lied(told));
        }
        Ok(())
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    /// Without the pages of the binary itself, of which more and more are read as more of it is used.
    memory: u64,
}

impl Held {
    fn by(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let memory: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { descriptors, memory: memory << 10 }
    }
}

struct Stage {
    home: Home,
    front: u16,
    admin: u16,
    upstream: Upstream,
    reloads: u64,
}

impl Stage {
    fn new() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let chance = Chance::new(Seed(SEED), "soak");
        let upstream = Upstream { address, chance, account: Arc::default(), over: Arc::default() };
        let stage = Self { home: Home::new(), front: free_port(), admin: free_port(), upstream, reloads: 0 };
        stage.write();
        stage
    }

    /// The system file; each time another comment and another limit, which nobody can notice.
    fn write(&self) {
        let Self { front, admin, reloads, .. } = self;
        let (upstream, patience) = (self.upstream.address, PATIENCE.as_secs());
        self.home.write(
            "pratfall.yaml",
            &format!(
                "# {reloads}\nversion: 1\nsystem: soak\nworkers: 2\nlisteners:\n  front:\n    bind: 127.0.0.1:{front}\n    \
                 upstream: \"http://{upstream}\"\n    timeouts: {{ connect: {patience}s, response: {patience}s, \
                 body_stall: {patience}s }}\nadmin: {{ bind: 127.0.0.1:{admin} }}\nlimits: {{ max_held: {} }}\n",
                1000 + reloads
            ),
        );
    }

    fn connections(&self) -> usize {
        let metrics = ask(self.admin, "GET", "/metrics", &[]).unwrap().body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("pratfall_connections "));
        line.unwrap_or_else(|| panic!("no number of connections in\n{metrics}")).parse().unwrap()
    }

    /// Lets everything misbehave for so long, and then waits until everybody has left.
    fn misbehave(&mut self, serving: &mut Pratfall, seen: &Arc<Seen>, ids: &Arc<AtomicU64>, span: Duration) -> Held {
        self.upstream.over.store(false, Ordering::Relaxed);
        let callers =
            Callers { front: self.front, upstream: self.upstream.clone(), seen: seen.clone(), ids: ids.clone() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let flapping = runtime.spawn(self.upstream.clone().flap());
        wait_for("the upstream", SOON, || std::net::TcpStream::connect(self.upstream.address).ok());
        let mut all = Vec::new();
        for _ in 0..12 {
            all.push(runtime.spawn(callers.clone().over_http1()));
        }
        for _ in 0..4 {
            all.push(runtime.spawn(callers.clone().over_http2()));
        }
        let (began, mut reloaded) = (Instant::now(), Instant::now());
        wait_for("the end of the soak", span + SOON, || {
            if reloaded.elapsed() > Duration::from_secs(3) {
                reloaded = Instant::now();
                self.reloads += 1;
                self.write();
                serving.signal("HUP");
                assert!(serving.lives(), "{}", serving.said());
            }
            (began.elapsed() > span).then_some(())
        });
        self.upstream.over.store(true, Ordering::Relaxed);
        runtime.block_on(join_all(all)).into_iter().for_each(|ended| ended.unwrap());
        // Now the upstream leaves for good, and takes the connections along that the proxy keeps for later.
        self.upstream.account.lock().unwrap().away.push((Instant::now(), None));
        flapping.abort();
        drop(runtime);
        wait_for("all connections to be over", SOON, || (self.connections() == 0).then_some(()));
        let mut held = Held::by(serving.pid());
        // The last sockets are closed by tasks that may still have to run, idle ones every second: until it is the same for
        // a while.
        let mut since = Instant::now();
        wait_for("the descriptors to stay as they are", SOON, || {
            let now = Held::by(serving.pid());
            if now.descriptors != held.descriptors {
                since = Instant::now();
            }
            held = now;
            (since.elapsed() > Duration::from_secs(3)).then_some(())
        });
        held
    }
}

#[test]
fn through_a_minute_of_mishaps_nothing_is_made_worse_and_nothing_is_left_behind() {
    let _alone = alone();
    let long = std::env::var_os("PRATFALL_LONG").is_some();
    let quarter = Duration::from_secs(if long { 150 } else { 14 });
    let mut stage = Stage::new();
    let mut serving = stage.home.start(&["serve"]);
    wait_for("ready", SOON, || ask(stage.admin, "GET", "/readyz", &[]).ok().filter(|answer| answer.status == 200));
    let (seen, ids) = (Arc::new(Seen::default()), Arc::new(AtomicU64::new(0)));

    let held = [(); 4].map(|()| stage.misbehave(&mut serving, &seen, &ids, quarter));

    let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let (whole, left, excused) = (read(&seen.whole), read(&seen.left), read(&seen.excused));
    println!("{whole} whole, {left} left, {excused} by the upstream, {} reloads", stage.reloads);
    println!("after each quarter {held:?}");
    let wrong = seen.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} that nobody else did:\n{}", wrong.len(), wrong.join("\n"));
    // Each of them happened, or this was no soak.
    assert!(whole > 1000 && left > 100 && excused > 100, "{whole} whole, {left} left, {excused} by the upstream");
    let did = stage.upstream.account.lock().unwrap().misdeeds.values().collect::<std::collections::HashSet<_>>().len();
    assert!(did >= 5, "the upstream did {did} kinds of harm");
    // What leaks is more after every quarter; what is only kept for a while is not.
    let (earlier, later) = held.split_at(2);
    let least = |figure: fn(&Held) -> u64| later.iter().map(figure).min().unwrap();
    let most = |figure: fn(&Held) -> u64| earlier.iter().map(figure).max().unwrap();
    let descriptors = |held: &Held| held.descriptors as u64;
    assert!(least(descriptors) <= most(descriptors), "descriptors are left open: {held:?}");
    let memory = |held: &Held| held.memory;
    assert!(least(memory) <= most(memory) + MEMORY_GROWTH, "memory grew: {held:?}");
    assert!(serving.lives());
    serving.signal("TERM");
    serving.end(SOON).exits(0);
}
