//! Other listeners while the traffic flows: everything is read and bound before anything changes.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::accept::Door;
use super::config::ListenerConfig;
use super::listen::Setup;
use super::{Proxy, ProxyError, bind, setup};

/// Listeners that are read and bound, and not yet served.
#[derive(Debug)]
pub struct Prepared {
    next: Vec<Next>,
    touched: Vec<String>,
}

#[derive(Debug)]
enum Next {
    /// As it was.
    Stays(Arc<Door>),
    /// The same door with another setup.
    Renewed(Arc<Door>, Arc<Setup>),
    /// A door of its own, on a socket that may be another listener's until now.
    Opens(Arc<Setup>, Arc<TcpListener>),
}

impl Prepared {
    /// The listeners that change or go, by name.
    pub fn touched(&self) -> &[String] {
        &self.touched
    }
}

impl Proxy {
    /// Goes over to other listeners, or stays as it is where one of them cannot be had.
    pub async fn reload(&self, configs: Vec<ListenerConfig>) -> Result<(), ProxyError> {
        let prepared = self.prepare(configs).await?;
        self.apply(prepared);
        Ok(())
    }

    /// Reads the files and binds the sockets of other listeners; nothing is changed yet.
    pub async fn prepare(&self, configs: Vec<ListenerConfig>) -> Result<Prepared, ProxyError> {
        let doors = self.doors().clone();
        let mut next = Vec::new();
        for config in configs {
            let setup = setup(config)?;
            let told = |door: &Arc<Door>| door.listener.setup();
            let same = doors
                .iter()
                .find(|door| door.listener.name == setup.config.name && told(door).config.bind == setup.config.bind);
            next.push(match same {
                Some(door) if told(door).is_same(&setup) => Next::Stays(door.clone()),
                Some(door) => Next::Renewed(door.clone(), setup),
                None => {
                    // An address that another listener gives up is taken over with those who wait there. Port 0 is a
                    // free one each time.
                    let port = setup.config.bind.port();
                    let other = doors.iter().find(|door| port != 0 && told(door).config.bind == setup.config.bind);
                    let socket = match other.and_then(|door| door.socket.upgrade()) {
                        Some(socket) => socket,
                        None => Arc::new(bind(&setup.config).await?),
                    };
                    Next::Opens(setup, socket)
                }
            });
        }
        let stays =
            |door: &Arc<Door>| next.iter().any(|next| matches!(next, Next::Stays(same) if Arc::ptr_eq(same, door)));
        let touched = doors.iter().filter(|door| !stays(door)).map(|door| door.listener.name.clone()).collect();
        Ok(Prepared { next, touched })
    }

    /// Goes over to what was prepared. Whoever is on a connection of a listener that goes may finish the request.
    pub fn apply(&self, prepared: Prepared) {
        let before = self.doors().clone();
        let kept = |door: &Arc<Door>| {
            prepared.next.iter().any(|next| match next {
                Next::Stays(same) | Next::Renewed(same, _) => Arc::ptr_eq(same, door),
                Next::Opens(..) => false,
            })
        };
        let gone: Vec<Arc<Door>> = before.into_iter().filter(|door| !kept(door)).collect();
        // Before somebody else accepts on the same socket.
        gone.iter().for_each(|door| door.accept_no_more());
        let next = prepared.next.into_iter();
        let doors = next.map(|next| match next {
            Next::Stays(door) => door,
            Next::Renewed(door, setup) => {
                self.renew(&door.listener, setup);
                door
            }
            Next::Opens(setup, socket) => self.open(setup, socket),
        });
        let doors = doors.collect();
        gone.iter().for_each(|door| door.close());
        self.stand(doors);
    }
}
