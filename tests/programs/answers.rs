//! Answers that a fault made up, as stock programs see them, and the files that they are made of.

use crate::support::{Home, Service, beside_others, free_port};

/// The system: front → ranker → a gRPC server, both listeners of one Pratfall.
fn system(front: u16, ranker: u16, server: u16) -> String {
    format!(
        "version: 1\nsystem: search\nlisteners:\n  \
         front: {{ bind: 127.0.0.1:{front}, upstream: \"h2c://127.0.0.1:{ranker}\" }}\n  \
         ranker: {{ bind: 127.0.0.1:{ranker}, upstream: \"h2c://127.0.0.1:{server}\" }}\n"
    )
}

fn experiment(fault: &str) -> String {
    format!(
        "version: 1\nexperiment: ranker-unavailable\n\
         hypothesis: If the ranker is unavailable, then nobody notices, because there is a fallback.\n\
         slice: {{ at: front, treatment: 50%, by: request }}\n\
         inject: {{ at: ranker, match: {{ grpc: shop.Ranker/Rank }}, faults: [{{ {fault} }}] }}\n\
         steady_state: [{{ error_rate: {{ max_increase: 5pp }} }}]\n\
         phases: {{ baseline: 1s, inject: 20s, recovery: 1s }}\nseed: 11\n"
    )
}

#[test]
fn a_stock_grpc_client_sees_the_code_and_the_message() {
    let _turn = beside_others();
    let server = Service::python("ranker", &["ranker.py", "serve"]);
    let (home, front, ranker) = (Home::new(), free_port(), free_port());
    home.write("pratfall.yaml", &system(front, ranker, server.port));
    home.write("ranker.yaml", &experiment("error: { grpc: UNAVAILABLE, message: \"100 % asl\u{e9}ep\" }"));
    let mut run = home.start(&["run", "ranker.yaml", "--output", "json"]);
    run.until_it_says("baseline");
    let mut outcomes = Service::says("caller", &["ranker.py", "ask", &front.to_string()]);
    let mut seen = [outcomes.line(), outcomes.line()];
    seen.sort();
    assert_eq!(seen, ["OK\t", "UNAVAILABLE\t100 % asl\u{e9}ep"]);
    // Half of all calls fail, and that is what the run saw: exit 3 is broken.
    let done = run.end(crate::support::A_RUN).exits(3);
    let report = &done.reports()[0];
    assert!(report["fidelity"]["faulted"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_file_that_cannot_be_used_starts_nothing_and_is_named_with_its_place() {
    let home = Home::new();
    home.write("pratfall.yaml", &system(free_port(), free_port(), free_port()));
    home.write("experiment.yaml", &experiment("latency: { histogram: delays.csv }"));
    let place = "experiment.yaml:5";
    let check = || home.pratfall(&["check", "experiment.yaml"]).exits(0);
    check().says(place).says("warning: `delays.csv` is not there");
    home.pratfall(&["run", "experiment.yaml"]).exits(2).says(place).says("error: `delays.csv` is not there");
    home.write("delays.csv", "5ms\n12,3\n");
    let why = "`delays.csv`, line 2: write a length of time with its unit";
    check().says(why);
    home.pratfall(&["run", "experiment.yaml"]).exits(2).says("nothing was started").says(why);
    home.write("delays.csv", "5ms\n12ms,3\n");
    let good = check();
    assert!(!good.err.contains("warning"), "{}", good.err);
    // What is read is fit to be injected: only the upstream is missing now.
    home.pratfall(&["run", "experiment.yaml"]).exits(5).says("cannot be reached");
}
