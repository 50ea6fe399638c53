//! The map: all ports as one picture. The page asks `/api/v1/ports` for what it draws, by itself.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;

use super::DashboardUrl;
use super::page::{escaped, page};

const PAGE: &str = include_str!("map.html");

/// The page may ask its own server, and nothing else may be loaded, run, framed or sent. Its style sheet and its script are
/// told by their SHA-256; a browser that knows trusted types refuses to make markup of text whatever the script does.
const POLICY: &str = "default-src 'none'; style-src 'sha256-jfKlwlZ1CD1ONUX53BY2NZdDTSyXyJCC0QQjoxF+exU='; script-src 'sha256-Va2NZFZsLiyOBBbZ2dzyXAzXm5EeUZ+AfraKK7xGEaM='; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page, leading to a dashboard where there is one.
pub(super) fn map(dashboard: Option<&DashboardUrl>) -> Response<Full<Bytes>> {
    let url = dashboard.map_or("", DashboardUrl::as_str);
    page(PAGE.replace("{{dashboard}}", &escaped(url)), POLICY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::page::tests::assert_named;

    #[test]
    fn the_policy_names_the_style_sheet_as_it_is() {
        assert_named(POLICY, PAGE, "style");
    }

    #[test]
    fn the_policy_names_the_script_as_it_is() {
        assert_named(POLICY, PAGE, "script");
    }
}
