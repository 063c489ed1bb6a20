//! The data plane, seen from both ends of its sockets: what leaves is compared byte by byte with what came.

// The helpers are read by their neighbours only: what is public among them is public in this binary.
#![allow(unreachable_pub)]

mod answering;
mod bodies;
mod bounds;
mod braking;
mod carrying;
mod choosing;
mod counting;
mod doors;
mod faults;
mod floods;
mod forwarding;
mod http2;
mod identifying;
mod interims;
mod leaving;
mod panicking;
mod peers;
mod reading;
mod refusing;
mod releasing;
mod reloading;
mod replies;
mod slowing;
mod smuggling;
mod support;
mod tearing;
mod tls_callers;
mod tls_upstreams;
mod transparent;
mod tunnels;
mod uploading;
mod upstreams;
mod waiting;
