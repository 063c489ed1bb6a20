//! The inventory: knows how many of each article are left, and says so in about a millisecond.

use std::io;
use std::time::Duration;

use http::{Method, Request};
use hyper::body::Incoming;
use serde_json::json;

use super::{Answer, Service, id_in, json, not_found};

/// What looking into a small table takes.
const LOOKUP: Duration = Duration::from_millis(1);

/// Starts the inventory: `GET /stock/{id}`.
pub async fn inventory() -> io::Result<Service> {
    Service::start(answer).await
}

async fn answer(request: Request<Incoming>) -> Answer {
    match (request.method(), id_in(request.uri().path(), "/stock/")) {
        (&Method::GET, Some(id)) => {
            tokio::time::sleep(LOOKUP).await;
            json(&json!({ "id": id, "stock": stock(id) }))
        }
        _ => not_found(),
    }
}

/// The same for the same article, as a shelf has it.
fn stock(id: &str) -> u64 {
    id.bytes().fold(7, |stock, byte| (stock * 31 + u64::from(byte)) % 97)
}
