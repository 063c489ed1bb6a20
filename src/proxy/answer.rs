//! One request, from its head to the head of its answer. Whatever the proxy itself meets becomes an answer.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::config::ListenerConfig;
use super::context::Member;
use super::hop::{self, Seen};
use super::interim::Interim;
use super::meet::{self, Meeting};
use super::pass::{self, Here, Way};
use super::peer;
use super::reply;
use super::site::{Plan, Site};
use super::torn;
use super::trial::Trial;
use super::tunnel;
use super::upload::unwanted;
use super::wire::Socket;
use super::worker::{Counted, Worker};
use crate::service::{Body, Cut, Error, Origin};

/// The field that marks answers which did not come from the upstream.
pub(super) const MARK: HeaderName = HeaderName::from_static("x-pratfall");

/// A body that mostly comes with its head: what is left of it behind an early answer, hyper reads away.
const SHORT: u64 = 8 << 10;

/// What the requests of one connection share.
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) site: Rc<Site>,
    pub(super) caller: SocketAddr,
    pub(super) socket: Socket,
    /// Counted as open for as long as somebody holds this.
    pub(super) _counted: Counted,
}

impl Connection {
    /// Answers one request. Heads lie in boxes: to move them from one future to the next costs more.
    pub(super) async fn answer(self: Rc<Self>, mut request: Box<Request<Body>>) -> Result<Response<Body>, Error> {
        let (version, head) = (request.version(), *request.method() == Method::HEAD);
        let busy = self.socket.begin();
        let plan = self.site.plan();
        let mut entry = self.site.listener.log.draw(plan.config(), &request);
        let upload = (version < Version::HTTP_2 && !request.body().is_end_stream()).then(|| {
            self.socket.awaits(request.body_mut());
            let waits = request.headers().contains_key(EXPECT) && version == Version::HTTP_11;
            (request.body_mut().lend(), waits)
        });
        let result = match hop::examine(&request, &plan.config().bounds) {
            Err(error) => Err(error),
            Ok(seen) => {
                // Through the runs that are live, if any are; else straight to the upstream.
                let live = self.site.listener.live.load(Ordering::Relaxed) > 0;
                let Way { meeting, watched, member } =
                    if live { self.way(&plan, &mut request) } else { Way::default() };
                let mut result = match meeting {
                    Some(meeting) => Box::pin(self.meet(&plan, meeting, *request, seen)).await.map(Box::new),
                    None => self.forward(&plan, request, seen, member.as_ref()).await,
                };
                watched.settle(result.as_mut().map(Box::as_mut).map_err(|error| &*error), version);
                result
            }
        };
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                if let Some(entry) = &mut entry {
                    entry.because(&error);
                }
                match self.unanswered(&plan, error, version, head) {
                    Ok(mut response) => {
                        if let Some((loan, waits)) = upload.filter(|_| self.socket.has_more()) {
                            unwanted(loan.back(), waits, response.headers_mut());
                        }
                        Box::new(response)
                    }
                    Err(error) => {
                        if let Some(entry) = entry {
                            entry.write();
                        }
                        return Err(error);
                    }
                }
            }
        };
        self.site.stats().answered(response.status());
        response.body_mut().keep(busy);
        self.site.listener.say_goodbye(version, &mut response);
        if version == Version::HTTP_10 {
            torn::mind(&mut response, &self.socket, plan.config().timeouts.body_stall.get());
        }
        if let Some(entry) = entry {
            entry.watch(&mut response);
        }
        Ok(*response)
    }

    /// What becomes of a request that got no answer from the upstream.
    fn unanswered(&self, plan: &Plan, error: Error, version: Version, head: bool) -> Result<Response<Body>, Error> {
        let stats = self.site.stats();
        if let Error::Gone = error {
            // Nobody is there to read an answer.
            return Err(error);
        }
        if error.origin() == Origin::Injected {
            // On HTTP/2 the stream alone is reset: others share the connection.
            if matches!(error, Error::Injected(Cut::Reset, _)) && version < Version::HTTP_2 {
                self.socket.reset();
            }
            stats.unanswered();
            return Err(error);
        }
        stats.proxy_error();
        let mut answer = made_up(plan.config(), &error, version);
        if head {
            // RFC 9110, 9.3.2: the length of the content, and none of it; on HTTP/2 nobody else takes it away.
            let length = answer.body().size_hint().exact().unwrap_or_default();
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            *answer.body_mut() = Body::empty();
        }
        Ok(answer)
    }

    fn here<'a>(&'a self, plan: &'a Plan, request: &Request<Body>, trials: &'a [Arc<Trial>]) -> Here<'a> {
        Here {
            worker: &self.worker,
            listener: self.site.listener.index,
            config: plan.config(),
            caller: peer::caller(self.caller.ip(), request.headers(), &plan.config().trusted_proxies),
            socket: Some(&self.socket),
            trials,
        }
    }

    fn way(&self, plan: &Plan, request: &mut Request<Body>) -> Way {
        let trials = self.site.listener.trials();
        pass::way(&self.here(plan, request, &trials), request)
    }

    async fn meet(
        self: &Rc<Self>,
        plan: &Rc<Plan>,
        meeting: Meeting,
        request: Request<Body>,
        seen: Seen,
    ) -> Result<Response<Body>, Error> {
        let (connection, onward) = (self.clone(), plan.clone());
        let next: pass::Next = Rc::new(move |request| {
            let (connection, plan) = (connection.clone(), onward.clone());
            Box::pin(
                async move { connection.forward(&plan, Box::new(request), seen, None).await.map(|response| *response) },
            )
        });
        meet::meet(&self.here(plan, &request, &[]), meeting, request, next).await
    }

    /// Sends a request on, with baggage that is not among its fields, and brings the answer back.
    async fn forward(
        self: &Rc<Self>,
        plan: &Plan,
        mut request: Box<Request<Body>>,
        seen: Seen,
        member: Option<&Member>,
    ) -> Result<Box<Response<Body>>, Error> {
        let config = plan.config();
        let pool = plan.pool(&request).ok_or(Error::NoRoute)?;
        hop::name(&mut request, &config.host, &pool.host, seen)?;
        if seen.upgrade {
            return Box::pin(tunnel::upgrade(self, pool, config, request, member)).await;
        }
        if seen.lengths {
            hop::one_length(request.headers_mut()).map_err(|()| Error::Refused("different lengths are told"))?;
        }
        if seen.hop {
            hop::strip(request.headers_mut());
            hop::relist(request.headers_mut());
        }
        let long = request.body().size_hint().upper().is_none_or(|most| most > SHORT);
        let expects = seen.expects && !request.body().is_end_stream();
        let hints = (config.early_hints && request.version() == Version::HTTP_11).then(|| self.socket.clone());
        let interim = (expects || hints.is_some()).then(|| Interim::hear(&mut *request, hints));
        if let Some(interim) = interim.as_ref().filter(|_| expects) {
            interim.expect(&mut request, config.timeouts.body_stall.get());
        }
        let mut response = pool.send(&config.timeouts, request, false, member).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Unasked);
        }
        reply::examine(&mut response)?;
        let unasked = interim.is_some_and(|interim| interim.end());
        if unasked || (long && self.socket.has_more()) {
            // RFC 9110, 10.1.1, and RFC 9112, 9.6: who will not read the body that was announced says so.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // RFC 9110, 2.5: a version is a matter of the hop.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }
}

/// The answer to a request that the proxy could not send on.
fn made_up(config: &ListenerConfig, error: &Error, version: Version) -> Response<Body> {
    tracing::debug!(listener = config.name, error = error.chain(), "no answer");
    let mut response = Response::new(Body::from(bytes::Bytes::from(format!("pratfall: {error}\n"))));
    *response.status_mut() = status(error);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if config.mark
        && let Ok(value) = HeaderValue::try_from(format!("proxy; error={}", error.kind()))
    {
        headers.insert(MARK, value);
    }
    // What cannot be trusted to have been read to its end is the last on its connection.
    let suspect = matches!(error.origin(), Origin::Caller | Origin::Proxy) && !matches!(error, Error::NoRoute);
    if suspect && version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Error::Refused(_) | Error::Upload(_) => StatusCode::BAD_REQUEST,
        Error::LongTarget => StatusCode::URI_TOO_LONG,
        Error::LargeHead => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Error::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
        Error::NoRoute => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_GATEWAY,
    }
}
