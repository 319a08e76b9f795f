//! Whom a request is for.
//!
//! - Where only this machine can ask, no web page can: a browser that was led here by a name of the page's own
//!   (DNS rebinding) names it in `Host`.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const REFUSAL: &str = "this port answers to localhost and to addresses only: ask http://localhost or http://127.0.0.1\n";

/// Lets a request through that is for an address or for localhost. One without `Host` is no browser's.
pub(super) async fn is_ours(request: Request, next: Next) -> Response {
    let mut named = request.headers().get_all(header::HOST).iter();
    if named.all(is_address_or_localhost) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, REFUSAL).into_response()
}

fn is_address_or_localhost(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_ours_and_names_are_not() {
        let is_ours = |host: &str| is_address_or_localhost(&HeaderValue::from_str(host).unwrap());
        for host in [
            "127.0.0.1:9187",
            "127.0.0.1",
            "[::1]:9187",
            "192.168.1.5",
            "localhost:9187",
            "LocalHost",
        ] {
            assert!(is_ours(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9187",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a b",
        ] {
            assert!(!is_ours(host), "{host}");
        }
    }
}
