//! Web configurations, good and bad, and what exporter-toolkit's own check says of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::path::Path;
use std::process::Command;

use darkport_exporter::web::Settings;
use support::pki::{Authority, Purpose};

/// What promtool 2.42 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promtool {
    /// The same.
    Agrees,
    /// Nothing of worth, for it is older than this key and refuses whatever has it.
    TooOld,
    /// The other thing, and here is why ours is the better answer.
    Differs(&'static str),
}
use Promtool::{Agrees, Differs, TooOld};

const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

/// Name, text, what the one problem says (with its place; `None`: there is none), and promtool. `TLS` stands for a certificate
/// and its key by file, `HASH` for a bcrypt hash, `PEM_CERT` and `PEM_KEY` for the two in place.
const TABLE: &[(&str, &str, Option<&str>, Promtool)] = &[
    ("nothing", "", None, Agrees),
    ("only comments", "# tls_server_config:\n", None, Agrees),
    ("null", "~\n", None, Agrees),
    ("an empty mapping", "{}\n", None, Agrees),
    (
        "a list",
        "- tls_server_config\n",
        Some("1:1: a list stands here"),
        Agrees,
    ),
    (
        "not YAML",
        "tls_server_config: {\n",
        Some("not valid YAML"),
        Agrees,
    ),
    (
        "an unknown section",
        "tls_config: {}\n",
        Some("1:1: tls_config: unknown key"),
        Agrees,
    ),
    (
        "a section without value",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
        None,
        Agrees,
    ),
    (
        "a section twice",
        "http_server_config: {}\nhttp_server_config: {}\n",
        Some("2:1: http_server_config: the key stands twice, first on line 1"),
        Agrees,
    ),
    // TLS: certificate and key.
    (
        "certificate and key",
        "tls_server_config: {TLS}\n",
        None,
        Agrees,
    ),
    (
        "certificate and key in place",
        "tls_server_config:\n  cert: PEM_CERT\n  key: PEM_KEY\n",
        None,
        TooOld,
    ),
    (
        "a certificate in place and by file",
        "tls_server_config: {TLS, cert: PEM_CERT}\n",
        Some("tls_server_config.cert_file: stands beside cert"),
        TooOld,
    ),
    (
        "a key in place and by file",
        "tls_server_config: {TLS, key: PEM_KEY}\n",
        Some("tls_server_config.key_file: stands beside key"),
        TooOld,
    ),
    (
        "a certificate in place and a key by file",
        "tls_server_config: {cert: PEM_CERT, key_file: server-key.pem}\n",
        None,
        TooOld,
    ),
    (
        "a certificate in place that is none",
        "tls_server_config: {cert: garbage, key_file: server-key.pem}\n",
        Some("there is no certificate in PEM"),
        TooOld,
    ),
    (
        "no key",
        "tls_server_config: {cert_file: server.pem}\n",
        Some("tls_server_config.key_file: missing"),
        Agrees,
    ),
    (
        "no certificate",
        "tls_server_config: {key_file: server-key.pem}\n",
        Some("tls_server_config.cert_file: missing"),
        Agrees,
    ),
    (
        "empty paths",
        "tls_server_config: {cert_file: '', key_file: ''}\n",
        None,
        Agrees,
    ),
    (
        "a key that is elsewhere",
        "tls_server_config: {cert_file: server.pem, key_file: nowhere.pem}\n",
        Some("1:54: tls_server_config.key_file: "),
        Agrees,
    ),
    (
        "a directory for a key",
        "tls_server_config: {cert_file: server.pem, key_file: .}\n",
        Some("is a directory"),
        Agrees,
    ),
    (
        "the key of another",
        "tls_server_config: {cert_file: server.pem, key_file: other-key.pem}\n",
        Some("the key is not that of the certificate"),
        Agrees,
    ),
    (
        "certificate and key exchanged",
        "tls_server_config: {cert_file: server-key.pem, key_file: server.pem}\n",
        Some("there is no certificate in PEM"),
        Agrees,
    ),
    (
        "a certificate that is none",
        "tls_server_config: {cert_file: garbage.pem, key_file: server-key.pem}\n",
        Some("there is no certificate in PEM"),
        Agrees,
    ),
    (
        "a certificate that is cut off",
        "tls_server_config: {cert_file: cut.pem, key_file: server-key.pem}\n",
        Some("not valid PEM: a section does not end"),
        Agrees,
    ),
    (
        "a versions without a certificate",
        "tls_server_config: {min_version: TLS13}\n",
        Some("tls_server_config.cert_file: missing"),
        Differs("TLS is asked for and would be off"),
    ),
    (
        "a key that is not known",
        "tls_server_config: {TLS, key_fil: x}\n",
        Some("tls_server_config.key_fil: unknown key: did you mean key_file?"),
        Agrees,
    ),
    // TLS: clients.
    (
        "no client certificate",
        "tls_server_config: {TLS, client_auth_type: NoClientCert}\n",
        None,
        Agrees,
    ),
    (
        "a client certificate is asked for",
        "tls_server_config: {TLS, client_auth_type: RequestClientCert}\n",
        None,
        Agrees,
    ),
    (
        "any client certificate",
        "tls_server_config: {TLS, client_auth_type: RequireAnyClientCert}\n",
        None,
        Agrees,
    ),
    (
        "any client certificate, by its old name",
        "tls_server_config: {TLS, client_auth_type: RequireClientCert}\n",
        None,
        Agrees,
    ),
    (
        "verified if given",
        "tls_server_config: {TLS, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem}\n",
        None,
        Agrees,
    ),
    (
        "required and verified",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem}\n",
        None,
        Agrees,
    ),
    (
        "authorities in place",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca: PEM_CERT}\n",
        None,
        TooOld,
    ),
    (
        "verified by nobody",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert}\n",
        Some("tls_server_config.client_ca_file: missing"),
        Differs("every public authority would do"),
    ),
    (
        "authorities without a policy",
        "tls_server_config: {TLS, client_ca_file: ca.pem}\n",
        Some("no client is asked for a certificate"),
        Agrees,
    ),
    (
        "authorities that are elsewhere",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca_file: nowhere.pem}\n",
        Some("tls_server_config.client_ca_file: "),
        Agrees,
    ),
    (
        "authorities that are none",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca_file: garbage.pem}\n",
        Some("there is no certificate in PEM"),
        Differs("nobody could connect"),
    ),
    (
        "a policy that is not known",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerify}\n",
        Some("is not one of NoClientCert"),
        Agrees,
    ),
    (
        "allowed names",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [prometheus.example, 192.0.2.1]}\n",
        None,
        TooOld,
    ),
    (
        "allowed names of no certificate",
        "tls_server_config: {TLS, client_allowed_sans: [prometheus.example]}\n",
        Some("a client without certificate would not be asked for its names"),
        TooOld,
    ),
    (
        "nobody's names",
        "tls_server_config: {TLS, client_auth_type: RequireAnyClientCert, client_allowed_sans: []}\n",
        Some("names nobody"),
        TooOld,
    ),
    (
        "an e-mail address and a URI among the allowed names",
        "tls_server_config: {TLS, client_auth_type: RequireAnyClientCert, client_allowed_sans: ['ops@example.org', 'spiffe://example.org/prometheus']}\n",
        None,
        TooOld,
    ),
    (
        "allowed names of a certificate that need not come",
        "tls_server_config: {TLS, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem, client_allowed_sans: [prometheus.example]}\n",
        Some("a client without certificate would not be asked for its names"),
        TooOld,
    ),
    (
        "one allowed name that is no list",
        "tls_server_config: {TLS, client_auth_type: RequireAnyClientCert, client_allowed_sans: {a: b}}\n",
        Some("write a list of names, addresses or URIs"),
        TooOld,
    ),
    (
        "authorities in place and by file",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca: PEM_CERT, client_ca_file: ca.pem}\n",
        Some("tls_server_config.client_ca_file: stands beside client_ca"),
        TooOld,
    ),
    (
        "authorities in place that are none",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca: garbage}\n",
        Some("there is no certificate in PEM"),
        TooOld,
    ),
    (
        "verified if given, by nobody",
        "tls_server_config: {TLS, client_auth_type: VerifyClientCertIfGiven}\n",
        Some("tls_server_config.client_ca_file: missing"),
        Differs("every public authority would do"),
    ),
    (
        "a policy without a certificate of one's own",
        "tls_server_config: {client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem}\n",
        Some("tls_server_config.cert_file: missing"),
        Agrees,
    ),
    // TLS: versions, suites, curves.
    (
        "versions",
        "tls_server_config: {TLS, min_version: TLS12, max_version: TLS13}\n",
        None,
        Agrees,
    ),
    (
        "an old version",
        "tls_server_config: {TLS, min_version: TLS10}\n",
        Some("TLS 1.0 and 1.1 are broken"),
        Differs("rustls has neither"),
    ),
    (
        "a version that is not known",
        "tls_server_config: {TLS, min_version: TLS111}\n",
        Some("is not one of TLS12, TLS13"),
        Agrees,
    ),
    (
        "the newest version alone, and the server's order",
        "tls_server_config: {TLS, min_version: TLS13, max_version: TLS13, prefer_server_cipher_suites: true}\n",
        None,
        Agrees,
    ),
    (
        "versions that are blank",
        "tls_server_config: {TLS, min_version: '', max_version: ''}\n",
        None,
        Differs("a blank key is as none, as it is with paths"),
    ),
    (
        "no version left",
        "tls_server_config: {TLS, min_version: TLS13, max_version: TLS12}\n",
        Some("no version is left"),
        Differs("nobody could connect"),
    ),
    (
        "suites",
        "tls_server_config: {TLS, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256], prefer_server_cipher_suites: false}\n",
        None,
        Agrees,
    ),
    (
        "all suites there are",
        "tls_server_config: {TLS, cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]}\n",
        None,
        Agrees,
    ),
    (
        "no suites named",
        "tls_server_config: {TLS, cipher_suites: []}\n",
        None,
        Agrees,
    ),
    (
        "a suite with CBC",
        "tls_server_config: {TLS, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]}\n",
        Some("no suites with CBC"),
        Differs("rustls has none"),
    ),
    (
        "a suite without forward secrecy",
        "tls_server_config: {TLS, cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]}\n",
        Some("without forward secrecy"),
        Differs("rustls has none"),
    ),
    (
        "a suite that is not known",
        "tls_server_config: {TLS, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA265]}\n",
        Some("did you mean TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256?"),
        Agrees,
    ),
    (
        "suites of another version only",
        "tls_server_config: {TLS, max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]}\n",
        Some("none of these is for TLS 1.2"),
        Differs("nobody could connect"),
    ),
    (
        "no curves named",
        "tls_server_config: {TLS, curve_preferences: []}\n",
        None,
        Agrees,
    ),
    (
        "curves",
        "tls_server_config: {TLS, curve_preferences: [X25519, CurveP256, CurveP384]}\n",
        None,
        Agrees,
    ),
    (
        "a curve that is not to be had",
        "tls_server_config: {TLS, curve_preferences: [CurveP521]}\n",
        Some("this exporter does not have it"),
        Differs("ring has none"),
    ),
    (
        "a curve that is not known",
        "tls_server_config: {TLS, curve_preferences: [P256]}\n",
        Some("is not one of CurveP256"),
        Agrees,
    ),
    (
        "a suite that is no list",
        "tls_server_config: {TLS, cipher_suites: {a: b}}\n",
        Some("a mapping stands here: write a list of cipher suites"),
        Agrees,
    ),
    (
        "a preference that is none",
        "tls_server_config: {TLS, prefer_server_cipher_suites: always}\n",
        Some("is not one of true, false"),
        Agrees,
    ),
    // HTTP.
    (
        "no HTTP/2",
        "http_server_config: {http2: false}\n",
        None,
        Agrees,
    ),
    (
        "HTTP/2",
        "http_server_config: {http2: true}\n",
        None,
        Agrees,
    ),
    (
        "an unknown key of HTTP",
        "http_server_config: {http3: true}\n",
        Some("http_server_config.http3: unknown key"),
        Agrees,
    ),
    (
        "headers in a list",
        "http_server_config: {headers: [X-Frame-Options]}\n",
        Some("a list stands here"),
        Agrees,
    ),
    (
        "HTTP/2 perhaps",
        "http_server_config: {http2: perhaps}\n",
        Some("is not one of true, false"),
        Agrees,
    ),
    (
        "every header",
        "http_server_config:\n  headers:\n    Content-Security-Policy: default-src 'self'\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    X-XSS-Protection: '1; mode=block'\n    Strict-Transport-Security: max-age=60\n",
        None,
        Agrees,
    ),
    (
        "blank headers",
        "http_server_config: {headers: {Content-Security-Policy: '', X-XSS-Protection: ''}}\n",
        None,
        Agrees,
    ),
    (
        "a header that may not be set",
        "http_server_config: {headers: {Server: x}}\n",
        Some("http_server_config.headers.Server: unknown key"),
        Agrees,
    ),
    (
        "a header in small letters",
        "http_server_config: {headers: {x-frame-options: deny}}\n",
        Some("did you mean X-Frame-Options?"),
        Agrees,
    ),
    (
        "a frame option that is none",
        "http_server_config: {headers: {X-Frame-Options: DENY}}\n",
        Some("\"DENY\" is not deny or sameorigin"),
        Agrees,
    ),
    (
        "a blank frame option",
        "http_server_config: {headers: {X-Frame-Options: ''}}\n",
        Some("is not deny or sameorigin"),
        Agrees,
    ),
    (
        "a content type option that is none",
        "http_server_config: {headers: {X-Content-Type-Options: sniff}}\n",
        Some("is not nosniff"),
        Agrees,
    ),
    (
        "a header of two lines",
        "http_server_config: {headers: {Content-Security-Policy: \"a\\r\\nSet-Cookie: b\"}}\n",
        Some("a header is one line of text"),
        Differs("no such header can be sent"),
    ),
    // Users.
    (
        "users",
        "basic_auth_users: {alice: HASH, bob: HASH}\n",
        None,
        Agrees,
    ),
    ("no users", "basic_auth_users: {}\n", None, Agrees),
    (
        "a user twice",
        "basic_auth_users:\n  alice: HASH\n  alice: HASH\n",
        Some("3:3: basic_auth_users.alice: the name stands twice, first on line 2"),
        Agrees,
    ),
    (
        "a password for a hash",
        "basic_auth_users: {alice: secret}\n",
        Some("basic_auth_users.alice: not a bcrypt hash"),
        Agrees,
    ),
    (
        "a hash of another kind",
        "basic_auth_users: {alice: $apr1$ZjTqBB3f$IF9gdYAGlMrs2fuINjHsz.}\n",
        Some("not a bcrypt hash"),
        Agrees,
    ),
    (
        "a hash that is cut off",
        "basic_auth_users: {alice: $2y$05$abcdefghijklmnopqrstuuWG29Kuy}\n",
        Some("not a bcrypt hash"),
        Agrees,
    ),
    (
        "a hash with a cost of hours",
        "basic_auth_users: {alice: $2y$31$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu}\n",
        Some("the cost must be 4 to 18"),
        Differs("one log-in would take hours"),
    ),
    (
        "a name with a colon",
        "basic_auth_users: {'a:b': HASH}\n",
        Some("nobody can log in as \"a:b\""),
        Differs("RFC 7617 has no such name"),
    ),
    (
        "a list of users",
        "basic_auth_users: [alice]\n",
        Some("a list stands here"),
        Agrees,
    ),
    // Rate limit.
    (
        "a rate",
        "rate_limit: {interval: 1s, burst: 20}\n",
        None,
        TooOld,
    ),
    ("no rate", "rate_limit: {interval: 0}\n", None, TooOld),
    (
        "a rate without unit",
        "rate_limit: {interval: 5, burst: 20}\n",
        Some("\"5\" is not a duration"),
        TooOld,
    ),
    (
        "a rate without burst",
        "rate_limit: {interval: 1s}\n",
        Some("rate_limit.burst: without a burst"),
        TooOld,
    ),
    (
        "a burst without an interval",
        "rate_limit: {burst: 20}\n",
        None,
        TooOld,
    ),
    (
        "an unknown key of a rate",
        "rate_limit: {interval: 1s, bursts: 20}\n",
        Some("rate_limit.bursts: unknown key: did you mean burst?"),
        TooOld,
    ),
    (
        "a burst of none",
        "rate_limit: {interval: 1s, burst: 0}\n",
        Some("rate_limit.burst: without a burst"),
        TooOld,
    ),
];

/// A folder with what the table's files name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let server = authority.issue(Purpose::Server, &["localhost"]);
    let other = authority.issue(Purpose::Server, &["localhost"]);
    let cut = &server.certificate[..server.certificate.len() / 2];
    for (name, text) in [
        ("server.pem", &*server.certificate),
        ("server-key.pem", &server.key),
        ("other-key.pem", &other.key),
        ("ca.pem", &authority.pem),
        ("garbage.pem", "not a certificate\n"),
        ("cut.pem", cut),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Writes a row's file and gives its path.
fn write(folder: &Path, text: &str) -> std::path::PathBuf {
    let pem = |name| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        serde_json::Value::from(text).to_string()
    };
    let text = text
        .replace("TLS}", "cert_file: server.pem, key_file: server-key.pem}")
        .replace("{TLS,", "{cert_file: server.pem, key_file: server-key.pem,")
        .replace("PEM_CERT", &pem("server.pem"))
        .replace("PEM_KEY", &pem("server-key.pem"))
        .replace("HASH", HASH);
    let path = folder.join("web.yml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_is_good_is_taken_and_what_is_bad_is_refused_with_its_place_and_cure() {
    let folder = folder();
    for (name, text, problem, _) in TABLE {
        let path = write(folder.path(), text);
        match (Settings::load(&path), problem) {
            (Ok(_), None) => {}
            (Err(error), Some(problem)) => {
                let error = error.to_string();
                assert!(error.contains(problem), "{name}: {error}");
                assert!(
                    error.starts_with(&format!("{}:", path.display())),
                    "{name}: {error}"
                );
            }
            (Ok(_), Some(problem)) => panic!("{name} is taken, and not refused with {problem}"),
            (Err(error), None) => panic!("{name}: {error}"),
        }
    }
}

#[test]
#[ignore = "needs promtool"]
fn promtool_says_the_same_but_where_the_table_says_why_not() {
    let folder = folder();
    let mut surprises = Vec::new();
    for (name, text, problem, promtool) in TABLE {
        let path = write(folder.path(), text);
        let output = Command::new("promtool")
            .args(["check", "web-config"])
            .arg(&path)
            .output()
            .expect("promtool is needed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let agrees = output.status.success() == problem.is_none();
        let is_as_told = match promtool {
            Agrees => agrees,
            Differs(_) => !agrees,
            TooOld => said.contains("not found in type"),
        };
        if !is_as_told {
            surprises.push(format!("{name} ({promtool:?}): {said}"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn every_problem_is_told_at_once_and_no_secret_with_it() {
    let folder = folder();
    let path = write(
        folder.path(),
        "tls_server_config:\n  cert_file: server.pem\n  key: sesame\n  min_version: TLS10\n  cipher_suites: [x]\n\
         basic_auth_users: {alice: sesame, bob: sesame}\nrate_limit: {burst: x}\nother: 1\n",
    );
    let error = Settings::load(&path).unwrap_err().to_string();
    for problem in [
        ":3:8: tls_server_config.key: there is no private key",
        ":4:16: tls_server_config.min_version: ",
        ":5:19: tls_server_config.cipher_suites[0]: ",
        ":6:27: basic_auth_users.alice: ",
        ":6:40: basic_auth_users.bob: ",
        ":7:21: rate_limit.burst: ",
        ":8:1: other: unknown key",
    ] {
        assert!(error.contains(problem), "{problem} in\n{error}");
    }
    assert_eq!(error.lines().count(), 7, "{error}");
    assert!(!error.contains("sesame"), "{error}");
}

#[test]
fn what_is_shown_has_names_and_no_secrets() {
    let folder = folder();
    let path = write(
        folder.path(),
        "# why\ntls_server_config: {cert_file: server.pem, key: PEM_KEY}\nbasic_auth_users: {alice: HASH}\n",
    );
    let settings = Settings::load(&path).unwrap();
    assert_eq!(
        settings.text(),
        "tls_server_config:\n  cert_file: server.pem\n  key: <secret>\nbasic_auth_users:\n  alice: <secret>\n"
    );
    let debug = format!("{settings:?}");
    assert!(
        !debug.contains("abcdefghijklmnopqrstuu") && !debug.contains("PRIVATE"),
        "{debug}"
    );
}
