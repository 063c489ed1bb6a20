//! A rehearsal names who loses the context: four stock services in a chain, one of them without OpenTelemetry.

use serde_json::Value;

use crate::support::{Done, Home, SOON, Service, ask, beside_others, free_port, wait_for};

const EXPERIMENT: &str = "version: 1
experiment: slow-prices
title: Orders are placed while prices are slow
hypothesis: If prices are slow, then orders are placed, because nobody waits for them.
slice: { at: front, match: { path: /checkout/** } }
inject: { at: prices, match: { path: /stock/** }, faults: [{ latency: { delay: 1s } }] }
steady_state: [{ name: orders are placed, error_rate: { max_increase: 20pp } }]
traffic: { rate: 60/s, requests: [{ path: \"/checkout/{1..500}\" }] }
seed: 5
";

/// front → shop → catalogue → relay → inventory → relay → prices → relay.
struct Four {
    home: Home,
    /// Ports of the listeners, and of the services behind them.
    listeners: [u16; 4],
    services: [u16; 4],
    admin: u16,
}

const NAMES: [&str; 4] = ["front", "catalogue", "inventory", "prices"];

impl Four {
    fn new() -> Self {
        let home = Home::new();
        let four = Self {
            home,
            listeners: [0; 4].map(|_| free_port()),
            services: [0; 4].map(|_| free_port()),
            admin: free_port(),
        };
        four.home.write("prices.yaml", EXPERIMENT);
        four.system("pratfall.yaml", "trust_baggage: true");
        four
    }

    fn system(&self, file: &str, between: &str) {
        let mut text = "version: 1\nsystem: chain\nlisteners:\n".to_owned();
        for (place, name) in NAMES.iter().enumerate() {
            let (bind, upstream) = (self.listeners[place], self.services[place]);
            let more = if place == 1 || place == 2 { format!(", {between}") } else { String::new() };
            text +=
                &format!("  {name}: {{ bind: 127.0.0.1:{bind}, upstream: \"http://127.0.0.1:{upstream}\"{more} }}\n");
        }
        self.home.write(file, &format!("{text}admin: {{ bind: 127.0.0.1:{} }}\n", self.admin));
    }

    fn relay(&self, place: usize, carries: bool) -> Service {
        Service::relay(self.listeners.get(place + 1).copied(), self.services[place], carries)
    }

    fn rehearse(&self, more: &[&str]) -> Done {
        self.home.pratfall(&[&["rehearse", "prices.yaml", "--for", "6s"], more].concat())
    }
}

#[test]
fn of_four_stock_services_the_one_that_drops_the_context_is_named() {
    let _turn = beside_others();
    let four = Four::new();
    let _shop = Service::shop("nothing", four.listeners[1], four.services[0], true);
    let (_third, _last) = (four.relay(2, true), four.relay(3, true));
    let second = four.relay(1, false);
    let named = format!("by the service behind catalogue (http://127.0.0.1:{})", four.services[1]);
    let lost = four.rehearse(&[]).exits(5).says("the context does not reach prices").says(&named);
    lost.says("OTEL_SDK_DISABLED").says("LOST");

    // On a serving proxy, that is not armed for anything.
    let serving = four.home.start(&["serve"]);
    wait_for("ready", SOON, || ask(four.admin, "GET", "/readyz", &[]).ok().filter(|answer| answer.status == 200));
    let url = format!("http://127.0.0.1:{}", four.admin);
    four.rehearse(&["--on", &url]).exits(5).says(&named).says("not armed");
    serving.signal("TERM");
    serving.end(SOON).exits(0);

    drop(second);
    let _second = four.relay(1, true);
    let map: Value = serde_json::from_str(&four.rehearse(&["--output", "json"]).exits(0).out).unwrap();
    for place in 1..4 {
        let seen = &map["map"]["listeners"][place];
        assert_eq!((&seen["listener"], &seen["context"]), (&NAMES[place].into(), &"arrives".into()), "{map}");
        assert!(seen["by"]["baggage"].as_u64() > Some(20), "{seen}");
    }
    assert_eq!(map["map"]["losses"], Value::Array(Vec::new()));
    assert!(!four.home.path("reports").exists(), "nothing is reported");
    let log: Value = four.home.log();
    assert_eq!((log["runs"].as_array().map(Vec::len), log["failures"].as_array().map(Vec::len)), (Some(0), Some(0)));

    // A listener of ours between the two is named as well, with the way out.
    four.system("distrust.yaml", "trust_baggage: false");
    four.home.write("prices.yaml", &EXPERIMENT.replace("slice: {", "slice: { carry: baggage,"));
    let ours = four.rehearse(&["--config", "distrust.yaml"]).exits(5);
    ours.says("the listener catalogue takes members of our name out").says("`trust_baggage: true`");
}
