//! What a request pays on its way through the proxy's own code, in memory: no socket, no upstream, one thread.
//!
//! `benches/README.md` says how to run it and what the lines mean.

use std::future::ready;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::async_executor::AsyncExecutor;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use pratfall::config::System;
use pratfall::experiment::Experiment;
use pratfall::experiment::limits::Limits;
use pratfall::measure::{Budget, Count, Phase, Rule, Until};
use pratfall::proxy::pass::{Here, Next, pass};
use pratfall::proxy::{Enrolled, Injection, Listener, Setup, Terms, Trial, Worker};
use pratfall::service::Body;
use pratfall::units::Seed;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SYSTEM: &str = "
version: 1
system: bench
listeners: { front: { bind: 127.0.0.1:0, upstream: 'http://127.0.0.1:1' } }
";

/// Slice and fault at one listener, so that one pass pays for both.
const EXPERIMENT: &str = "
version: 1
experiment: bench
hypothesis: If the bench answers 503, then nobody minds, because nobody is there.
slice: { at: front, match: { method: GET, path: /checkout/** }, treatment: 1%, control: 99%, by: request }
inject: { faults: [{ error: { status: 503 } }] }
steady_state:
  - failed_operations: { by: trace, deadline: 3s, max: 1% }
";

/// Requests between two breaths, in which the worker hands over what it recorded.
const BREATH: u64 = 256;

/// A worker's thread, as in the proxy: one runtime, tasks that never leave it.
struct Thread {
    runtime: Runtime,
    tasks: LocalSet,
}

impl AsyncExecutor for &Thread {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tasks.block_on(&self.runtime, future)
    }
}

/// A run that is live at one listener; the fault is on for as long as it lives.
struct Live {
    trial: Arc<Trial>,
    _enrolled: Enrolled,
    _injection: Injection,
}

/// Treats everybody with a share of 1, and nobody with 0.
fn live(thread: &Thread, listener: &Arc<Listener>, treatment: f64) -> Live {
    let (experiment, _) = Experiment::parse("bench", EXPERIMENT, &|_| None).expect("it is well written");
    let terms = Terms {
        run: "r-bench".into(),
        seed: Seed(7),
        rules: vec![Rule::Error(Count::DEFAULT.into()), Rule::slow(Duration::from_millis(800), Until::Body)],
        limits: Arc::new(Limits::default().with_every_fault()),
        harmed: Budget::new(u64::MAX, CancellationToken::new()),
        max_faulted: None,
        patience: Duration::from_secs(30),
        places: (listener.index, listener.index),
    };
    let (trial, mut batches) = Trial::new(Arc::new(experiment), terms);
    thread.tasks.spawn_local(async move { while batches.recv().await.is_some() {} });
    let enrolled = Enrolled::new(std::slice::from_ref(listener), trial.clone());
    trial.begin(Phase::Inject);
    trial.treat(treatment);
    Live { trial, _injection: enrolled.inject(), _enrolled: enrolled }
}

fn request(path: &'static str) -> Request<Body> {
    Request::get(path)
        .header("host", "shop.example.com")
        .header("accept", "application/json")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(Body::empty())
        .expect("a request")
}

fn path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let thread = Thread { runtime, tasks: LocalSet::new() };
    let (system, _) = System::parse("bench", SYSTEM, &|_| None).expect("it is well written");
    let setup = Setup::read(system.listeners[0].clone()).expect("it names no files");
    let listener = || Listener::new(0, setup.clone(), 1, CancellationToken::new());
    let worker = (&thread).block_on(async { Worker::new(0) });
    let upstream: Next =
        Rc::new(|_| Box::pin(ready(Ok(Response::new(Body::from(Bytes::from_static(b"{\"stock\":7}")))))));

    let mut group = criterion.benchmark_group("path");
    let mut measure = |name: &str, path: &'static str, treatment: Option<f64>, through: bool| {
        let listener = listener();
        let live = treatment.map(|share| live(&thread, &listener, share));
        let trials: Vec<_> = live.iter().map(|live| live.trial.clone()).collect();
        let here = Here {
            worker: &worker,
            listener: listener.index,
            config: &setup.config,
            caller: IpAddr::V4(Ipv4Addr::LOCALHOST),
            socket: None,
            trials: &trials,
        };
        let one = async || {
            let request = black_box(request(path));
            let answer = if through { pass(&here, request, upstream.clone()).await } else { upstream(request).await };
            let (head, body) = answer.expect("an answer").into_parts();
            black_box(body.collect().await.expect("a whole body"));
            head.status
        };
        let faulted = (&thread).block_on(one()) == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(faulted, name == "treated", "{name} is not what it says");
        let many = async |requests: u64| -> Duration {
            let start = Instant::now();
            for number in 0..requests {
                black_box(one().await);
                if number % BREATH == 0 {
                    tokio::task::yield_now().await;
                }
            }
            start.elapsed()
        };
        group.bench_function(name, |bencher| bencher.to_async(&thread).iter_custom(&many));
    };
    measure("nothing", "/checkout/7", None, false);
    measure("no experiment", "/checkout/7", None, true);
    measure("no match", "/healthz", Some(1.0), true);
    measure("control", "/checkout/7", Some(0.0), true);
    measure("treated", "/checkout/7", Some(1.0), true);
    group.finish();
}

criterion_group!(benches, path);
criterion_main!(benches);
