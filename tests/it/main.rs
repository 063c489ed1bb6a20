//! The data plane, seen from both ends of its sockets: what leaves is compared byte by byte with what came.

// The helpers are read by their neighbours only: what is public among them is public in this binary.
#![allow(unreachable_pub)]

mod bodies;
mod carrying;
mod choosing;
mod counting;
mod faults;
mod forwarding;
mod http2;
mod leaving;
mod panicking;
mod refusing;
mod releasing;
mod reloading;
mod support;
mod transparent;
mod upstreams;
mod waiting;
