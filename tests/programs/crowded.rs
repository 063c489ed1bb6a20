//! With too few file descriptors callers wait or are refused, those who are served go on, and it recovers.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::chain::Chain;
use crate::support::{SOON, beside_others, hello_on};

/// More callers than there are descriptors for.
const CALLERS: usize = 120;

#[test]
fn out_of_descriptors_the_ones_served_go_on_and_the_others_wait_for_their_turn() {
    let _turn = beside_others();
    let chain = Chain::new("");
    let mut serving = chain.home.start_with_descriptors(120, &["serve"]);
    chain.until_ready();
    let (answered, served) = mpsc::channel();
    for _ in 0..CALLERS {
        let (answered, front) = (answered.clone(), chain.front);
        std::thread::spawn(move || {
            let Ok(mut socket) = TcpStream::connect((Ipv4Addr::LOCALHOST, front)) else { return };
            if hello_on(&mut socket).is_ok() {
                let _ = answered.send(socket); // the test may be over
            }
        });
    }
    drop(answered);
    serving.until_it_says("too few file descriptors");
    assert_eq!(chain.telemetry("/livez").unwrap().status, 200, "operators are let in");
    let mut all = 0;
    while all < CALLERS {
        let mut inside = vec![served.recv_timeout(SOON).expect("somebody's turn comes")];
        while let Ok(next) = served.recv_timeout(Duration::from_millis(100)) {
            inside.push(next);
        }
        assert!(inside.len() < CALLERS, "never all at once");
        for socket in &mut inside {
            hello_on(socket).expect("whoever is served is served on");
        }
        all += inside.len();
    }
    for _ in 0..50 {
        assert_eq!(chain.ask("/hello", "ada").unwrap().status, 200, "as before");
    }
    assert!(serving.lives());
    assert!(
        chain
            .telemetry("/metrics")
            .unwrap()
            .body
            .contains("pratfall_requests_total{listener=\"front\",code_class=\"5xx\"} 0")
    );
}
