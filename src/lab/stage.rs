//! A small shop in memory for tests: front asks inventory, both behind the proxy, on Tokio's clock and without a socket.
//! Requests come at a fixed rate, so that a run of minutes is over in milliseconds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{Lab, Order, Progress, Refusal, Stop};
use crate::experiment::Experiment;
use crate::experiment::limits::Limits;
use crate::fault::Release;
use crate::ledger::Ledger;
use crate::proxy::pass::{Here, Next, pass};
use crate::proxy::{ListenerConfig, Proxy, Worker};
use crate::report::Report;
use crate::service::{Body, Error};
use crate::units::Seed;

/// What the service behind front does, and what it saw. Tests change what they are about.
pub(super) struct Shop {
    /// Requests per second; none come while it is zero.
    pub(super) rate: Cell<u32>,
    /// Whether it passes baggage on.
    pub(super) carries: Cell<bool>,
    /// After how long it gives up on inventory.
    pub(super) timeout: Cell<Option<Duration>>,
    /// Whether it answers well without inventory.
    pub(super) fallback: Cell<bool>,
    /// Until when, from when on, it answers everybody with 500.
    pub(super) sick: Cell<Option<(Duration, Duration)>>,
    /// The arm whose mark it answers with 500.
    pub(super) dislikes: Cell<Option<&'static str>>,
    /// How many users there are; each request is of the next.
    pub(super) users: Cell<u32>,
    /// How often a caller that got no good answer tries again; then its requests have an id.
    pub(super) retries: Cell<Option<u32>>,
    /// Requests under way.
    pub(super) waiting: Cell<u32>,
    /// Requests that came, ever.
    pub(super) came: Cell<u32>,
    /// Calls that inventory did not answer at once: they met the fault.
    pub(super) late: Cell<u32>,
    /// Asked whenever a call meets the fault.
    pub(super) on_fault: RefCell<Box<dyn FnMut()>>,
    started: Instant,
}

pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) shop: Rc<Shop>,
    worker: Rc<Worker>,
}

/// A run under way.
pub(super) struct Live {
    pub(super) stop: watch::Sender<Option<Stop>>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) run: JoinHandle<Result<Report, Refusal>>,
}

/// The usual experiment; tests replace what they are about.
pub(super) const DOCUMENT: &str = "
version: 1
experiment: slow-inventory
hypothesis: If inventory is slow, then orders are quick, because there is a timeout.
slice: { at: front, treatment: 20% }
inject: { at: inventory, faults: [{ latency: { delay: 2s } }] }
steady_state: [{ name: quick, slow_rate: { over: 800ms, max_increase: 10pp } }]
phases: { baseline: 5s, inject: 20s, recovery: 5s }
";

pub(super) const SLOW: &str = "{ name: quick, slow_rate: { over: 800ms, max_increase: 10pp } }";
pub(super) const LATENCY: &str = "{ latency: { delay: 2s } }";
pub(super) const PHASES: &str = "{ baseline: 5s, inject: 20s, recovery: 5s }";

/// The usual experiment with some pieces replaced.
pub(super) fn document(changes: &[(&str, &str)]) -> Arc<Experiment> {
    let text = changes.iter().fold(DOCUMENT.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "`{old}` is not in the document");
        text.replace(old, new)
    });
    Arc::new(Experiment::parse("test.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0)
}

fn listener(name: &str) -> ListenerConfig {
    ListenerConfig::plain(name, ([127, 0, 0, 1], 1).into(), None)
}

/// Builds the stage and lets a test play on it.
pub(super) async fn on_stage<F: Future<Output = ()>>(play: impl FnOnce(Rc<Stage>) -> F) {
    LocalSet::new()
        .run_until(async {
            let stage = Rc::new(Stage::new());
            tokio::task::spawn_local(stage.clone().traffic());
            play(stage).await;
        })
        .await;
}

impl Shop {
    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Stage {
    fn new() -> Self {
        let worker = Worker::new(0);
        let proxy = Arc::new(Proxy::in_memory(vec![listener("front"), listener("inventory")], &worker));
        let limits = Arc::new(Limits::default().with_every_fault());
        let shop = Shop {
            rate: Cell::new(50),
            carries: Cell::new(true),
            timeout: Cell::new(None),
            fallback: Cell::new(true),
            sick: Cell::new(None),
            dislikes: Cell::new(None),
            users: Cell::new(u32::MAX),
            retries: Cell::new(None),
            waiting: Cell::new(0),
            came: Cell::new(0),
            late: Cell::new(0),
            on_fault: RefCell::new(Box::new(|| {})),
            started: Instant::now(),
        };
        Self { lab: Lab { proxy, limits, ledger: None, system: None }, shop: Rc::new(shop), worker }
    }

    pub(super) fn order(experiment: Arc<Experiment>, seed: u64) -> Order {
        Order { experiment, run: "R-test".into(), seed: Seed(seed), follow_up_of: None, underpowered: false }
    }

    /// Begins a run.
    pub(super) fn start(&self, experiment: Arc<Experiment>) -> Live {
        self.start_in(self.lab.clone(), experiment)
    }

    /// Begins a run that a ledger remembers.
    pub(super) fn start_with(&self, ledger: Arc<Ledger>, experiment: Arc<Experiment>) -> Live {
        self.start_in(Lab { ledger: Some(ledger), ..self.lab.clone() }, experiment)
    }

    /// Begins a run in another lab.
    pub(super) fn start_in(&self, lab: Lab, experiment: Arc<Experiment>) -> Live {
        let (stop, stopped) = watch::channel(None);
        let (shown, progress) = watch::channel(Progress::default());
        let order = Self::order(experiment, 7);
        let run = tokio::task::spawn_local(async move { lab.conduct(order, stopped, &shown).await });
        Live { stop, progress, run }
    }

    /// A whole run.
    pub(super) async fn run(&self, experiment: Arc<Experiment>) -> Report {
        let live = self.start(experiment);
        live.run.await.expect("no panic").unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// No fault is left and nobody is held: what must be so whatever the way out of a run.
    pub(super) async fn is_quiet(&self, why: &str) {
        // Those who were held leave in turn, within this.
        sleep(Release::LONGEST + Duration::from_millis(20)).await;
        for listener in self.lab.proxy.listeners().iter() {
            assert!(listener.trials().is_empty(), "{why}: a run is still enrolled at {}", listener.name);
        }
        let (late, came) = (self.shop.late.get(), self.shop.came.get());
        assert!(self.shop.waiting.get() <= 1, "{why}: {} are not answered", self.shop.waiting.get());
        sleep(Duration::from_secs(2)).await;
        assert!(self.shop.came.get() > came + 50, "{why}: requests came");
        assert!(self.shop.waiting.get() <= 1, "{why}: {} are held later", self.shop.waiting.get());
        assert_eq!(self.shop.late.get(), late, "{why}: calls still meet the fault");
    }

    /// The same where no request comes that could show it.
    pub(super) fn is_quiet_without_traffic(&self) {
        assert!(self.lab.proxy.listeners().iter().all(|listener| listener.trials().is_empty()));
        assert_eq!(self.shop.waiting.get(), 0);
    }

    async fn traffic(self: Rc<Self>) {
        let mut rate = 0;
        let mut ticks = interval(Duration::from_millis(10));
        loop {
            if rate != self.shop.rate.get() {
                rate = self.shop.rate.get();
                ticks = interval(Duration::from_secs(1) / rate.max(1));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            }
            ticks.tick().await;
            if rate > 0 {
                let number = self.shop.came.get();
                self.shop.came.set(number + 1);
                tokio::task::spawn_local(self.clone().ask_front(number));
            }
        }
    }

    async fn ask_front(self: Rc<Self>, number: u32) {
        let user = format!("user-{}", number % self.shop.users.get());
        let request = || Request::get(format!("/checkout/{number}")).header("x-user", &user);
        let Some(most) = self.shop.retries.get() else {
            self.answer(request().body(Body::empty()).expect("a request")).await;
            return;
        };
        for attempt in 0..=most {
            let request = request().header("x-request-id", format!("r{number}")).body(Body::empty());
            if self.answer(request.expect("a request")).await {
                return;
            }
            sleep(Duration::from_millis(200) * (attempt + 1)).await;
        }
    }

    /// A request of its own, with this baggage.
    pub(super) async fn ask(self: &Rc<Self>, baggage: Option<String>) {
        let request =
            baggage.iter().fold(Request::get("/checkout/1"), |request, value| request.header("baggage", value));
        self.answer(request.body(Body::empty()).expect("a request")).await;
    }

    /// Whether it was answered well.
    async fn answer(self: &Rc<Self>, request: Request<Body>) -> bool {
        let stage = self.clone();
        let shop: Next = Rc::new(move |request| Box::pin(stage.clone().shop(request)));
        self.shop.waiting.set(self.shop.waiting.get() + 1);
        let well = self.through(0, request, shop).await.is_ok_and(|response| response.status().is_success());
        self.shop.waiting.set(self.shop.waiting.get() - 1);
        well
    }

    /// Takes a request through one of the listeners.
    async fn through(&self, place: usize, request: Request<Body>, next: Next) -> Result<Response<Body>, Error> {
        let listener = self.lab.proxy.at(place);
        let setup = listener.setup();
        let trials = listener.trials();
        if trials.is_empty() {
            return next(request).await;
        }
        let here = Here {
            worker: &self.worker,
            listener: place,
            config: &setup.config,
            caller: [127, 0, 0, 1].into(),
            socket: None,
            trials: &trials,
        };
        pass(&here, request, next).await
    }

    /// The service behind front.
    async fn shop(self: Rc<Self>, request: Request<Body>) -> Result<Response<Body>, Error> {
        let mut call = Request::get("/stock/7").body(Body::empty()).expect("a request");
        if let Some(baggage) = request.headers().get("baggage").filter(|_| self.shop.carries.get()) {
            call.headers_mut().insert("baggage", baggage.clone());
        }
        if let Some(id) = request.headers().get("x-request-id") {
            call.headers_mut().insert("x-request-id", id.clone());
        }
        let patience = self.shop.timeout.get().unwrap_or(Duration::from_secs(3600));
        let since = Instant::now();
        let inventory: Next = Rc::new(|_| {
            Box::pin(async {
                sleep(Duration::from_millis(5)).await;
                Ok(Response::new(Body::empty()))
            })
        });
        let asked = timeout(patience, self.through(1, call, inventory)).await;
        let well = matches!(&asked, Ok(Ok(response)) if response.status().is_success());
        if !well || since.elapsed() > Duration::from_millis(50) {
            self.shop.late.set(self.shop.late.get() + 1);
            (self.shop.on_fault.borrow_mut())();
        }
        let now = self.shop.started.elapsed();
        let sick = self.shop.sick.get().is_some_and(|(from, until)| (from..until).contains(&now));
        let mark = request.headers().get("baggage").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let sick = sick || self.shop.dislikes.get().is_some_and(|arm| mark.contains(arm));
        let mut response = Response::new(Body::empty());
        if sick || !(well || self.shop.fallback.get()) {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        Ok(response)
    }
}
