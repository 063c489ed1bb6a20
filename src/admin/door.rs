//! One door of the control plane. Few come in at a time and nobody stays for long: whoever stands in it takes no file
//! descriptor from the traffic, and keeps nobody out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Connections at one door: some scrapers, probes and commands. Who comes then takes the place of the oldest, so that a
/// probe is heard however many stand around.
const MOST: usize = 24;

/// How long a head may take.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection is used; those who want more come again.
const STAY: Duration = Duration::from_secs(60);

/// How long the last exchange may take after that.
const LEAVE: Duration = Duration::from_secs(10);

/// How long nobody is taken in when nobody can be.
const REST: Duration = Duration::from_millis(100);

/// Serves everybody who comes. Dropped, it drops them all.
pub(super) async fn serve(socket: TcpListener, router: Router) {
    let (mut inside, mut oldest_first) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        match socket.accept().await {
            Ok((stream, caller)) => {
                while inside.try_join_next().is_some() {}
                oldest_first.retain(|one| !one.is_finished());
                if oldest_first.len() >= MOST
                    && let Some(oldest) = oldest_first.pop_front()
                {
                    oldest.abort();
                }
                oldest_first.push_back(inside.spawn(attend(stream, caller, router.clone())));
            }
            Err(error) => {
                tracing::debug!(%error, "nobody can come in at a door of the control plane");
                sleep(REST).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, caller: SocketAddr, router: Router) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(caller))));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(STAY) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(LEAVE, connection).await; // nobody is there to be told
}
