//! A system that passes everything on and has no fallback: front → inventory → nginx, both listeners of one Pratfall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pratfall::chance::Chance;
use pratfall::units::Seed;
use serde_json::Value;

use crate::support::{Answer, Home, Nginx, Pratfall, SOON, ask, free_port, wait_for};

/// What the listeners are armed for where a test says nothing else.
pub(crate) const ARMED: &str = "limits: { faults: [latency, error, drop] }\n";

/// Where chance comes from in these tests: so it is known in advance who is treated.
pub(crate) const SEED: u64 = 11;

#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) home: Home,
    pub(crate) nginx: Nginx,
    pub(crate) front: u16,
    pub(crate) inventory: u16,
    pub(crate) admin: u16,
}

impl Chain {
    /// With more lines for the system file.
    pub(crate) fn new(more: &str) -> Self {
        let (home, nginx) = (Home::new(), Nginx::start());
        let (front, inventory, admin) = (free_port(), free_port(), free_port());
        let chain = Self { home, nginx, front, inventory, admin };
        chain.home.write("pratfall.yaml", &chain.system(more));
        chain
    }

    /// The system file, with more lines.
    pub(crate) fn system(&self, more: &str) -> String {
        let Self { front, inventory, admin, nginx, .. } = self;
        format!(
            "version: 1\nsystem: chain\nlisteners:\n  \
             front: {{ bind: 127.0.0.1:{front}, upstream: \"http://127.0.0.1:{inventory}\" }}\n  \
             inventory: {{ bind: 127.0.0.1:{inventory}, upstream: \"http://127.0.0.1:{}\" }}\n\
             admin: {{ bind: 127.0.0.1:{admin} }}\n{more}",
            nginx.port
        )
    }

    /// Whether a line is among the metrics.
    pub(crate) fn counts(&self, line: &str) -> bool {
        self.telemetry("/metrics").is_ok_and(|metrics| metrics.body.lines().any(|found| found == line))
    }

    /// The header that changes need.
    pub(crate) fn token(&self) -> String {
        format!("Bearer {}", self.home.read("pratfall.db.token").trim())
    }

    /// Serves, and is ready.
    pub(crate) fn serve(&self) -> Pratfall {
        let serving = self.home.start(&["serve"]);
        self.until_ready();
        serving
    }

    pub(crate) fn until_ready(&self) {
        wait_for("ready", SOON, || self.telemetry("/readyz").ok().filter(|answer| answer.status == 200));
    }

    /// What the admin listener shows.
    pub(crate) fn telemetry(&self, path: &str) -> std::io::Result<Answer> {
        ask(self.admin, "GET", path, &[])
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.telemetry("/status").unwrap().body).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// Asks nginx, through both listeners, as a user.
    pub(crate) fn ask(&self, path: &str, user: &str) -> std::io::Result<Answer> {
        ask(self.front, "GET", path, &[("x-user", user)])
    }

    /// Asks on behalf of many at once, each on a thread.
    pub(crate) fn ask_all(&self, users: Vec<String>) -> Vec<JoinHandle<std::io::Result<Answer>>> {
        let front = self.front;
        let ask_one = |user: String| std::thread::spawn(move || ask(front, "GET", "/hello", &[("x-user", &user)]));
        users.into_iter().map(ask_one).collect()
    }

    /// Traffic of users whom nothing happens to, until it is dropped.
    pub(crate) fn traffic(&self) -> Traffic {
        let (over, front) = (Arc::new(AtomicBool::new(false)), self.front);
        let seen = over.clone();
        let users = users(false, 5);
        let thread = std::thread::spawn(move || {
            for user in users.iter().cycle() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                let _ = ask(front, "GET", "/hello", &[("x-user", user)]); // the proxy may be down on purpose
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        Traffic { over, thread: Some(thread) }
    }
}

/// Requests that go on and on.
#[derive(Debug)]
pub(crate) struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An experiment by user, half of them treated, that waits at inventory for an hour.
pub(crate) const AN_HOUR: &str = "version: 1
experiment: an-hour
title: Pages answer while inventory takes an hour
hypothesis: If inventory takes an hour, then pages answer, because nobody waits for it.
slice: { at: front, match: { path: /hello }, treatment: 50%, by: header:x-user }
inject: { at: inventory, faults: [{ latency: { delay: 1h } }] }
steady_state: [{ name: pages answer, error_rate: { max_increase: 5pp } }]
halt_when: none
phases: { baseline: 1s, inject: 10m, recovery: 1s }
seed: 11
";

/// Users who are in the treatment of [`AN_HOUR`], or who are not.
pub(crate) fn users(treated: bool, how_many: usize) -> Vec<String> {
    let chance = Chance::new(Seed(SEED), "an-hour");
    let all = (0..).map(|number| format!("user-{number}"));
    all.filter(|user| (chance.draw("arm", user.as_bytes()) < 0.5) == treated).take(how_many).collect()
}
