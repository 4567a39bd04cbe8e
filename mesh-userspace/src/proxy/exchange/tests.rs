use super::*;
use crate::{
    model::{Http, Retries, RetryOn},
    proxy::{
        Side,
        fixture::{endpoint, mirror, nobody, request, run, serve, web, worker},
        request_body::REPLAYED,
    },
};
use http_body_util::BodyExt;
use std::cell::Cell;
use tokio::io::AsyncWriteExt;

const CONNECT: RetryOn = RetryOn { connect_failure: true, ..RetryOn::NONE };

/// A service that tries so many times more, for these failures, at once.
fn retrying(attempts: u32, on: RetryOn) -> Http {
    let retries = Retries { attempts, on, backoff_base: Duration::ZERO, ..Retries::default() };
    Http { retries, ..Http::default() }
}

fn retries(worker: &Worker) -> [u64; 4] {
    web(worker).state.retries.each_ref().map(|n| n.load(Ordering::Relaxed))
}

/// Status, reason and body of an answer.
async fn told(response: Response<ResponseBody>) -> (u16, String, usize) {
    let reason = response.head.headers.get("x-mesh-reason").map_or("", |reason| text(reason).unwrap()).to_owned();
    let status = response.head.status.as_u16();
    let length = response.body.collect().await.unwrap().to_bytes().len();
    (status, reason, length)
}

#[test]
fn no_endpoint_is_tried_twice_however_many_tries_there_may_be() {
    run(async {
        let worker = worker(&[nobody(), nobody(), nobody()], retrying(9, CONNECT));
        let (status, reason, _) = told(serve(&worker, "GET", b"").await).await;
        assert_eq!((status, reason.as_str()), (503, "connect_failure"));
        let opened: Vec<u64> = web(&worker).endpoints().map(|(_, e)| e.connections.counts().opened).collect();
        assert_eq!(opened, [1, 1, 1]);
        // Two extra tries failed, and for the next one nobody was left.
        assert_eq!(retries(&worker), [0, 2, 0, 1]);
    });
}

#[test]
fn an_extra_try_that_the_budget_does_not_allow_is_not_made() {
    run(async {
        let (address, accepted) = endpoint(|stream| mirror(stream, 500)).await;
        let (other, accepted_other) = endpoint(|stream| mirror(stream, 500)).await;
        let mut http = retrying(1, RetryOn { server_error: true, ..RetryOn::NONE });
        (http.retries.budget_ratio, http.retries.budget_min_per_second) = (0, 0);
        let worker = worker(&[address, other], http);
        assert_eq!(told(serve(&worker, "GET", b"").await).await.0, 500, "the endpoint's own answer is passed on");
        assert_eq!((accepted.get() + accepted_other.get(), retries(&worker)), (1, [0, 0, 1, 0]));
    });
}

#[test]
fn the_budget_is_a_part_of_the_requests_there_are() {
    run(async {
        let endpoints = [nobody(), nobody()];
        let mut http = retrying(1, CONNECT);
        (http.retries.budget_ratio, http.retries.budget_min_per_second) = (200, 0);
        let worker = worker(&endpoints, http);
        for _ in 0..20 {
            assert_eq!(told(serve(&worker, "GET", b"").await).await.0, 503);
        }
        let [success, failure, over, none] = retries(&worker);
        assert_eq!((success, failure, none), (0, 4, 0), "a fifth of twenty");
        assert_eq!(over, 16);
    });
}

#[test]
fn what_an_endpoint_may_have_begun_with_is_sent_again_only_if_it_is_idempotent() {
    run(async {
        let on = RetryOn { reset: true, ..RetryOn::NONE };
        for (method, status, reason) in [("PUT", 200, ""), ("POST", 502, "upstream_reset")] {
            let reads_and_closes = |mut stream| async move { drop(request(&mut stream).await) };
            let (bad, asked) = endpoint(reads_and_closes).await;
            let (good, _) = endpoint(|stream| mirror(stream, 200)).await;
            let worker = worker(&[bad, good], retrying(1, on));
            // One of two requests meets the bad one.
            let mut all = Vec::new();
            for _ in 0..2 {
                all.push(told(serve(&worker, method, b"body").await).await);
            }
            assert_eq!(asked.get(), 1, "{method}");
            all.sort();
            assert_eq!(all[1].0, status, "{method}");
            assert_eq!(all[1].1, reason, "{method}");
            assert_eq!(retries(&worker)[0], u64::from(status == 200), "{method}");
        }
    });
}

#[test]
fn a_body_is_sent_again_whole_as_long_as_it_is_kept() {
    const SMALL: &[u8] = &[b'x'; REPLAYED];
    const LARGE: &[u8] = &[b'x'; REPLAYED + 1];
    run(async {
        let on = RetryOn { server_error: true, ..RetryOn::NONE };
        for (body, status) in [(SMALL, 200), (LARGE, 500)] {
            // The first request of all is answered with 500, whoever gets it.
            let first = Rc::new(Cell::new(true));
            let serve_one =
                |first: Rc<Cell<bool>>| move |stream| mirror(stream, if first.replace(false) { 500 } else { 200 });
            let (one, _) = endpoint(serve_one(Rc::clone(&first))).await;
            let (two, _) = endpoint(serve_one(first)).await;
            let worker = worker(&[one, two], retrying(1, on));
            let (told_status, _, length) = told(serve(&worker, "PUT", body).await).await;
            assert_eq!((told_status, length), (status, body.len()));
        }
    });
}

#[test]
fn an_answer_that_broke_off_is_not_tried_again_and_counts_against_the_endpoint() {
    run(async {
        let half = |mut stream| async move {
            drop(request(&mut stream).await);
            let _ = AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf").await;
        };
        let (one, asked) = endpoint(half).await;
        let worker = worker(&[one, nobody()], retrying(3, RetryOn { reset: true, ..CONNECT }));
        for _ in 0..2 {
            let response = serve(&worker, "GET", b"").await;
            let reason = response.head.headers.get("x-mesh-reason");
            assert_eq!((response.head.status.as_u16(), reason), (200, None), "the other endpoint is not there");
            let fault = response.body.collect().await.err().unwrap();
            assert_eq!(fault.side, Side::Upstream);
        }
        assert_eq!(asked.get(), 2);
    });
}

mod traces {
    use super::*;
    use crate::proxy::{
        Trace, TraceId, Used,
        fixture::{serve_request, traced_worker},
        incoming::Incoming,
    };
    use http::Request;
    use std::rc::Rc;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    async fn ask(worker: &Rc<Worker>, headers: &[(&str, &str)]) -> (u16, String, usize) {
        let mut request = Request::builder().uri("/path?q=1").header("host", "web");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        told(serve_request(worker, request.body(Incoming::Copy(None)).unwrap().into()).await).await
    }

    #[test]
    fn what_went_well_is_kept_if_it_is_sampled_and_what_did_not_always() {
        run(async {
            for (status, kept) in [(200, false), (404, false), (500, true)] {
                let (address, _) = endpoint(move |stream| mirror(stream, status)).await;
                let (worker, traces) = traced_worker(&[address], Http::default());
                ask(&worker, &[]).await;
                assert_eq!(traces.take().len(), usize::from(kept), "{status}");
                ask(&worker, &[("traceparent", SAMPLED)]).await;
                let [Trace { id, parent, failed, is_sampled: true, .. }] = traces.take()[..] else {
                    panic!("{status}")
                };
                assert_eq!((id, parent, failed), (TRACE, 0x00f0_67aa_0ba9_02b7, kept));
                worker.shared.record_traces(false);
                ask(&worker, &[("traceparent", SAMPLED)]).await;
                assert_eq!(traces.take().len(), 0, "nobody wants any");
            }
        });
    }

    #[test]
    fn each_try_is_remembered_with_how_it_ended_and_by_which_connection_it_went() {
        run(async {
            let (good, _) = endpoint(|stream| mirror(stream, 200)).await;
            let (worker, traces) = traced_worker(&[nobody(), good], retrying(1, CONNECT));
            let mut kept = Vec::new();
            for _ in 0..4 {
                assert_eq!(ask(&worker, &[]).await.0, 200);
                kept.append(&mut traces.take());
            }
            assert_eq!(kept.len(), 2, "every other request meets the one that is not there");
            for (trace, reused) in kept.iter().zip([None, Some(true)]) {
                let [first, second] = &trace.tries[..] else { panic!("{trace:?}") };
                assert_eq!((first.failed, first.used), (Some("connect_failure"), Used::default()));
                assert_eq!((second.failed, second.endpoint), (None, good));
                assert!(reused.is_none() || second.used.kept == reused, "{second:?}");
                assert_eq!(second.answered.unwrap().1, StatusCode::OK);
                assert!(first.ended <= second.began && second.began <= second.ended);
                assert_ne!(first.span, second.span);
                assert_eq!((trace.line.attempts, trace.failed, trace.is_sampled), (2, false, false));
                assert_eq!(trace.line.path.as_deref(), Some("/path?q=1"));
                assert_eq!(trace.line.trace_id, TraceId::new(trace.id));
            }
        });
    }

    #[test]
    fn refusals_are_kept_and_redirects_are_none() {
        run(async {
            let (worker, traces) = traced_worker(&[], Http::default());
            assert_eq!(ask(&worker, &[]).await.1, "no_endpoint");
            let refused = traces.take();
            assert_eq!((refused.len(), refused[0].line.reason, refused[0].tries.len()), (1, Some("no_endpoint"), 0));
        });
    }

    #[test]
    fn an_answer_that_breaks_off_is_kept_with_the_reason() {
        run(async {
            let half = |mut stream| async move {
                drop(request(&mut stream).await);
                let _ = AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf").await;
            };
            let (address, _) = endpoint(half).await;
            let (worker, traces) = traced_worker(&[address], Http::default());
            let response = serve(&worker, "GET", b"").await;
            assert!(traces.take().is_empty(), "not before it is over");
            assert!(response.body.collect().await.is_err());
            let kept = traces.take();
            assert_eq!((kept.len(), kept[0].line.reason, kept[0].failed), (1, Some("upstream_reset"), true));
        });
    }

    #[test]
    fn a_client_that_goes_away_leaves_a_trace() {
        run(async {
            let silent = |mut stream| async move {
                drop(request(&mut stream).await);
                std::future::pending::<()>().await;
            };
            let (address, _) = endpoint(silent).await;
            let (worker, traces) = traced_worker(&[address], Http::default());
            let asking = tokio::time::timeout(Duration::from_millis(200), serve(&worker, "GET", b""));
            assert!(asking.await.is_err());
            let kept = traces.take();
            assert_eq!((kept.len(), kept[0].line.status, kept[0].failed), (1, None, true));
            assert_eq!((kept[0].tries.len(), kept[0].tries[0].answered), (1, None));
        });
    }
}
