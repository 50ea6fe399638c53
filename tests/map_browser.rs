//! The map in a real browser: Debian's chromium without a window, driven by chromedriver as a person would: with keys and a
//! pointer.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{DEADLINE, Exporter, Running, free_address, wait_for};

const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const LEFT: &str = "\u{e012}";
const RIGHT: &str = "\u{e014}";
const DOWN: &str = "\u{e015}";
const HOME: &str = "\u{e011}";
const END: &str = "\u{e010}";
const PAGE_DOWN: &str = "\u{e00f}";
const ESCAPE: &str = "\u{e00c}";

/// A browser with one page, which ends with its test.
struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Running,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let driver = free_address();
        let process = Running::start(
            Command::new("chromedriver")
                .arg(format!("--port={}", driver.port()))
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        wait_for("chromedriver", || TcpStream::connect(driver).ok());
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--window-size=1440,1000",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let answer = ask(
            driver,
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": wanted}}),
        );
        let session = answer["sessionId"].as_str().expect("a session").to_owned();
        Self {
            driver,
            session,
            _process: process,
            _profile: profile,
        }
    }

    fn tell(&self, command: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        ask(self.driver, "POST", &path, body)
    }

    fn open(&self, exporter: &Exporter, path: &str) {
        let url = format!("http://{}{path}", exporter.address);
        self.tell("url", &json!({"url": url}));
    }

    /// What a script in the page returns.
    fn run(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({"script": script, "args": []}))
    }

    fn text(&self, id: &str) -> String {
        let text = self.run(&format!(
            "return document.getElementById('{id}').textContent"
        ));
        text.as_str().unwrap().to_owned()
    }

    /// How often the page has looked at the ports.
    fn looks(&self) -> u64 {
        let looks = self.run("return +(document.documentElement.dataset.looks ?? 0)");
        looks.as_u64().unwrap()
    }

    fn wait_for_looks(&self, more: u64) {
        let until = self.looks() + more;
        wait_for("another look", || (self.looks() >= until).then_some(()));
    }

    /// Presses keys, one after the other, on what has the focus.
    fn press(&self, keys: &[&str]) {
        let presses: Vec<Value> = keys
            .iter()
            .flat_map(|key| [("keyDown", key), ("keyUp", key)])
            .map(|(kind, key)| json!({"type": kind, "value": key}))
            .collect();
        let actions = json!([{"type": "key", "id": "keyboard", "actions": presses}]);
        self.tell("actions", &json!({"actions": actions}));
    }

    /// Types into what has the focus.
    fn write(&self, text: &str) {
        let keys: Vec<String> = text.chars().map(String::from).collect();
        self.press(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn point_at(&self, x: f64, y: f64) {
        let moves = json!([{"type": "pointerMove", "duration": 0, "x": x as i64, "y": y as i64}]);
        let actions = json!([{"type": "pointer", "id": "mouse", "actions": moves}]);
        self.tell("actions", &json!({"actions": actions}));
    }

    /// The errors in the page's console since this was last asked, refusals of its policy among them.
    fn errors(&self) -> Vec<Value> {
        let log = self.tell("se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE")
            .cloned()
            .collect()
    }

    /// Where a TCP port is drawn, in the window.
    fn place(&self, number: u16) -> (f64, f64) {
        let place = self.run(&format!(
            "const box = planes.tcp.element.getBoundingClientRect(), at = planes.tcp.centre({number}); \
             return [box.x + at.x, box.y + at.y]"
        ));
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    /// Whether the picture has this colour of the style sheet within some pixels of a TCP port.
    fn shows(&self, number: u16, colour: &str) -> bool {
        let shows = self.run(&format!(
            "const plane = planes.tcp, at = plane.centre({number}), scale = plane.canvas.width / plane.box.width, r = 6; \
             const {{ data }} = plane.canvas.getContext('2d').getImageData((at.x - r) * scale, (at.y - r) * scale, 2 * r * scale, 2 * r * scale); \
             for (let i = 0; i < data.length; i += 4) if (colours['{colour}'].rgb.every((part, j) => part === data[i + j])) return true; \
             return false"
        ));
        shows.as_bool().unwrap()
    }
}

impl Drop for Browser {
    /// chromedriver that is killed leaves its browser behind: the session is ended first.
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(self.driver) {
            let _ = stream.set_read_timeout(Some(DEADLINE));
            let path = format!("/session/{}", self.session);
            let _ = write!(
                stream,
                "DELETE {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.driver
            );
            let _ = stream.read(&mut [0; 512]);
        }
    }
}

/// A command of the WebDriver protocol: JSON there and back.
fn ask(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect(driver).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {driver}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    // It leaves the connection open, so the length tells the end.
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head).unwrap() > 2 {
        let line = head.lines().last().unwrap_or_default().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let mut value: Value = serde_json::from_slice(&body).unwrap();
    assert!(head.contains(" 200 "), "{method} {path}: {value}");
    value["value"].take()
}

/// TCP ports that nobody listens on, below the ephemeral range.
fn dark_ports<const N: usize>() -> [u16; N] {
    let mut free = (23_000..).filter(|&number| TcpListener::bind(("127.0.0.1", number)).is_ok());
    // Not side by side, so that one mark does not cover another.
    [(); N].map(|()| free.by_ref().nth(100).unwrap())
}

struct Watching {
    _folder: tempfile::TempDir,
    exporter: Exporter,
}

/// An exporter that allows a listener on the first port and none on the second.
fn watching(allowed: u16, forbidden: u16) -> Watching {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    let text = format!(
        "watch:\n- {{name: open, ports: [{allowed}], expect: [{{address: 127.*}}]}}\n\
         - {{name: strict, description: Nobody here, ports: [{forbidden}]}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let exporter = Exporter::start(&[
        "--config.file",
        file.to_str().unwrap(),
        "--web.dashboard-url=http://grafana.example.org/d/port?n={port}&p={protocol}",
    ]);
    Watching {
        _folder: folder,
        exporter,
    }
}

#[test]
#[ignore = "needs root"]
fn a_listener_lights_its_cell_and_keys_find_it() {
    let [allowed, forbidden] = dark_ports();
    let Watching { exporter, .. } = &watching(allowed, forbidden);
    let browser = Browser::start();
    browser.open(exporter, "/map");
    browser.wait_for_looks(1);
    assert_eq!(browser.errors(), [Value::Null; 0]);
    assert!(!browser.shows(allowed, "lit") && !browser.shows(forbidden, "unexpected"));

    // One look may be under way; the one after it must have seen the listener.
    let listener = TcpListener::bind(("127.0.0.1", allowed)).unwrap();
    browser.wait_for_looks(2);
    wait_for("the frame", || browser.shows(allowed, "lit").then_some(()));
    assert!(!browser.shows(forbidden, "unexpected"));
    assert!(
        browser
            .text("news")
            .contains(&format!("{allowed}/tcp is lit"))
    );

    // By keys alone, from the filter on.
    browser.run("document.getElementById('seek').focus()");
    browser.write(&allowed.to_string());
    browser.press(&[ENTER]);
    let focus = "return document.activeElement.id";
    assert_eq!(browser.run(focus), "plane-tcp");
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let said = browser.text("say");
    for part in [
        &format!("{allowed} TCP. "),
        "Lit.",
        &format!(
            "Listener {} process {} user root",
            comm.trim_end(),
            std::process::id()
        ),
        "on 127.0.0.1",
        "watched by open",
        "Connections 0",
        "opened ",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let here = |number: u16| {
        let said = browser.text("say");
        assert!(
            said.starts_with(&format!("{number} TCP. ")),
            "{number}: {said}"
        );
    };
    for (key, number) in [
        (RIGHT, allowed + 1),
        (LEFT, allowed),
        (DOWN, allowed + 32),
        (PAGE_DOWN, allowed + 32 + 1024),
        (HOME, (allowed + 32 + 1024) & !1023),
        (END, (allowed + 32 + 1024) | 1023),
    ] {
        browser.press(&[key]);
        here(number);
    }
    assert!(
        browser.text("say").contains("Dark."),
        "{}",
        browser.text("say")
    );
    browser.press(&["n"]);
    here(allowed);
    let link = browser.run("return document.querySelector('#port a').href");
    assert_eq!(
        link,
        format!("http://grafana.example.org/d/port?n={allowed}&p=tcp")
    );
    browser.press(&[ESCAPE]);
    assert_eq!(browser.run("return location.hash"), "");
    browser.press(&[TAB]);
    assert_eq!(browser.run(focus), "plane-udp");
    assert!(browser.text("say").starts_with(&format!("{allowed} UDP. ")));

    drop(listener);
    browser.wait_for_looks(2);
    wait_for("the frame", || {
        (!browser.shows(allowed, "lit")).then_some(())
    });
    assert!(
        browser
            .text("news")
            .contains(&format!("{allowed}/tcp went dark"))
    );
    assert_eq!(browser.errors(), [Value::Null; 0]);
}

/// A program whose name is markup, holding a listener.
fn hostile(folder: &tempfile::TempDir, name: &str, number: u16) -> Running {
    let program = folder.path().join(name);
    std::fs::copy("/bin/sleep", &program).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", number)).unwrap();
    Running::start(
        Command::new(&program)
            .arg("600")
            .stdin(Stdio::from(OwnedFd::from(listener))),
    )
}

#[test]
#[ignore = "needs root"]
fn the_tooltip_says_who_and_a_hostile_name_stays_text() {
    const NAME: &str = "<img src=x onerror=document.title=666>";
    let [allowed, forbidden] = dark_ports();
    let Watching { exporter, .. } = &watching(allowed, forbidden);
    let folder = tempfile::tempdir().unwrap();
    let process = hostile(&folder, NAME, forbidden);
    let comm = "<img src=x oner";
    let browser = Browser::start();
    browser.open(exporter, "/map");
    browser.wait_for_looks(1);
    wait_for("the frame", || {
        browser.shows(forbidden, "unexpected").then_some(())
    });
    let title = browser.run("return document.title");

    let _connection = TcpStream::connect(("127.0.0.1", forbidden)).unwrap();
    wait_for("the connection in the table", || {
        browser
            .run("return live.watched.some((w) => w.connections > 0)")
            .as_bool()
            .unwrap()
            .then_some(())
    });
    let (x, y) = browser.place(forbidden);
    browser.point_at(x + 2.0, y);
    let tip = browser.text("tip");
    let pid = format!("pid {}", process.pid());
    for part in [
        "opened ",
        " ago",
        "connections 1",
        "watched by strict",
        &format!("{forbidden}/tcp"),
        "Lit, unexpected: no rule of “strict”",
        comm,
        "root",
        "127.0.0.1",
        &pid,
    ] {
        assert!(tip.contains(part), "{part} in {tip}");
    }
    assert_eq!(
        browser.run("return document.getElementById('tip').hidden"),
        false
    );
    // The panel, the table and the live region say the same.
    let table = browser.text("listeners");
    assert!(table.contains(comm), "{table}");
    wait_for("the panel", || {
        browser.text("port").contains(NAME).then_some(())
    });
    browser.open(exporter, &format!("/map#{forbidden}/tcp"));
    browser.run("location.reload()");
    browser.wait_for_looks(1);
    browser.run("planes.tcp.element.focus()");
    let said = browser.text("say");
    assert!(said.contains(&format!("Listener {comm}")), "{said}");
    // Somebody looks for it by its name.
    browser.run("document.getElementById('seek').focus()");
    browser.write("<img");
    assert_eq!(browser.text("found"), "1 port");
    browser.wait_for_looks(1);

    let images = browser
        .run("return document.querySelectorAll('img, [onerror]').length + document.images.length");
    assert_eq!(images, 0);
    assert_eq!(browser.run("return document.title"), title);
    assert_eq!(browser.errors(), [Value::Null; 0]);

    // The policy stands behind that: not even a script of the page can make markup, or ask elsewhere.
    let refused = browser.run(
        "try { document.body.innerHTML += '<b>' ; return 'made' } catch (error) { return error.name }",
    );
    assert_eq!(refused, "TypeError");
    browser.open(exporter, "/");
    let landing = browser.run("return document.querySelector('.verdict').textContent");
    assert_eq!(landing, format!("Unexpected listeners: {forbidden}/tcp."));
}

#[test]
#[ignore = "needs root"]
fn what_is_unknown_does_not_look_dark() {
    let [allowed, forbidden] = dark_ports();
    let mut watching = watching(allowed, forbidden);
    let _listener = TcpListener::bind(("127.0.0.1", allowed)).unwrap();
    let browser = Browser::start();
    browser.open(&watching.exporter, &format!("/map#{allowed}/tcp"));
    browser.wait_for_looks(1);
    wait_for("the frame", || browser.shows(allowed, "lit").then_some(()));
    let veiled = "return !document.querySelector('#plane-tcp .veil').hidden && !document.querySelector('#lens .veil').hidden";
    assert_eq!(browser.run(veiled), false);
    assert_eq!(browser.errors(), [Value::Null; 0]);

    // It hangs, goes on, and ends.
    watching.exporter.process.signal("STOP");
    let status = |expected: &str| {
        wait_for(expected, || {
            (browser.text("status") == expected).then_some(())
        });
    };
    status("connection lost");
    wait_for("the frame", || (browser.run(veiled) == true).then_some(()));
    watching.exporter.process.signal("CONT");
    let tier = browser.run("return live.tier");
    status(&format!("live, tier {}", tier.as_str().unwrap()));
    wait_for("the frame", || (browser.run(veiled) == false).then_some(()));

    watching.exporter.process.signal("TERM");
    assert!(watching.exporter.process.ended().success());
    browser.wait_for_looks(2);
    assert_eq!(browser.text("status"), "connection lost");
    wait_for("the frame", || (browser.run(veiled) == true).then_some(()));
    assert!(
        browser.text("alarm").contains("is unknown"),
        "{}",
        browser.text("alarm")
    );
    assert!(
        browser.text("port").contains("Unknown now"),
        "{}",
        browser.text("port")
    );
    assert_eq!(browser.text("sum-tcp"), "unknown");
}

#[test]
#[ignore = "needs root"]
fn a_phone_shows_all_of_it_in_either_theme() {
    let [allowed, forbidden] = dark_ports();
    let Watching { exporter, .. } = &watching(allowed, forbidden);
    let _listener = TcpListener::bind(("127.0.0.1", forbidden)).unwrap();
    let browser = Browser::start();
    let emulate = |command: &str, parameters: Value| {
        browser.tell(
            "goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        );
    };
    emulate(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 360, "height": 740, "deviceScaleFactor": 3, "mobile": true}),
    );
    for path in ["/map", "/"] {
        let mut grounds = Vec::new();
        for scheme in ["dark", "light"] {
            let feature = json!({"name": "prefers-color-scheme", "value": scheme});
            emulate("Emulation.setEmulatedMedia", json!({"features": [feature]}));
            browser.open(exporter, path);
            if path == "/map" {
                browser.wait_for_looks(1);
                wait_for("the frame", || {
                    browser.shows(forbidden, "unexpected").then_some(())
                });
            }
            picture(
                &browser,
                &format!("phone{}-{scheme}", path.replace('/', "-")),
            );
            let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
            assert_eq!(overflow, 0, "{path}");
            grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
        }
        assert_ne!(grounds[0], grounds[1], "{path}");
    }
    // One protocol at a time, and the other says by its name what must not be missed.
    browser.open(exporter, "/map");
    browser.wait_for_looks(1);
    assert_eq!(
        browser.run("return document.getElementById('figure-udp').hidden"),
        true
    );
    browser.run("document.querySelector('[data-show=udp]').click()");
    wait_for("the name of the other", || {
        browser
            .text("protocols")
            .contains("TCP · 1 unexpected")
            .then_some(())
    });
    assert_eq!(browser.errors(), [Value::Null; 0]);
}

#[test]
#[ignore = "needs root"]
fn the_filter_narrows_the_picture_and_the_tables() {
    let [allowed, forbidden] = dark_ports();
    let Watching { exporter, .. } = &watching(allowed, forbidden);
    let _listeners = [allowed, forbidden].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let browser = Browser::start();
    browser.open(exporter, "/map");
    browser.wait_for_looks(1);
    wait_for("the frame", || {
        browser.shows(forbidden, "unexpected").then_some(())
    });
    for scheme in ["dark", "light"] {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        browser.tell(
            "goog/cdp/execute",
            &json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": [feature]}}),
        );
        wait_for("the theme", || {
            browser.shows(forbidden, "unexpected").then_some(())
        });
        picture(&browser, &format!("map-{scheme}"));
    }
    // The legend is the filter: each state says how many there are.
    let chip = |state: &str| {
        let text = browser.run(&format!(
            "return document.querySelector('[data-state={state}]').textContent"
        ));
        text.as_str().unwrap().to_owned()
    };
    assert_eq!(chip("unexpected"), "Unexpected 1");
    assert_eq!(chip("watched"), "Watched 4");
    let numbers = || browser.text("listeners");
    let both = [allowed, forbidden].map(|port| format!("{port}/tcp"));
    assert!(
        both.iter().all(|name| numbers().contains(name)),
        "{}",
        numbers()
    );

    // By keys: the chip takes the space bar, and gives back what it took.
    browser.run("document.querySelector('[data-state=unexpected]').focus()");
    browser.press(&[" "]);
    assert_eq!(browser.text("found"), "1 port");
    assert!(!numbers().contains(&both[0]) && numbers().contains(&both[1]));
    wait_for("the other to fade", || {
        (!browser.shows(allowed, "lit") && browser.shows(forbidden, "unexpected")).then_some(())
    });
    browser.press(&[" "]);
    assert_eq!(browser.text("found"), "");
    wait_for("the other to be back", || {
        browser.shows(allowed, "lit").then_some(())
    });

    for (words, found) in [
        (format!("{allowed}-{}", allowed + 9), "20 ports"),
        (format!("{allowed}/udp"), "1 port"),
        ("strict".to_owned(), "2 ports"),
        ("nosuchthing".to_owned(), "0 ports"),
    ] {
        browser.run("seek.focus(); seek.value = ''");
        browser.write(&words);
        assert_eq!(browser.text("found"), found, "{words}");
    }
    browser.run("seek.value = ''; filter()");
    browser.run("document.querySelector('[data-show=udp]').click()");
    assert!(both.iter().all(|name| !numbers().contains(name)));
    assert_eq!(browser.errors(), [Value::Null; 0]);
}

/// What the browser gives to a screen reader, as its accessibility tree has it.
#[test]
#[ignore = "needs root"]
fn a_screen_reader_finds_its_way() {
    let [allowed, forbidden] = dark_ports();
    let Watching { exporter, .. } = &watching(allowed, forbidden);
    let browser = Browser::start();
    browser.open(exporter, "/map");
    browser.wait_for_looks(1);
    browser.tell(
        "goog/cdp/execute",
        &json!({"cmd": "Accessibility.enable", "params": {}}),
    );
    let tree = || -> Vec<(String, String, Value)> {
        let tree = browser.tell(
            "goog/cdp/execute",
            &json!({"cmd": "Accessibility.getFullAXTree", "params": {}}),
        );
        let nodes = tree["nodes"].as_array().unwrap().iter();
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        nodes
            .filter(|node| node["ignored"] == false)
            .map(|node| (text(&node["role"]), text(&node["name"]), node.clone()))
            .collect()
    };
    let nodes = tree();
    let find = |role: &str, name: &str| {
        let found = nodes
            .iter()
            .find(|(has, called, _)| has == role && called.starts_with(name));
        let all: Vec<_> = nodes.iter().map(|(role, name, _)| (role, name)).collect();
        found
            .unwrap_or_else(|| panic!("{role} {name:?} in {all:?}"))
            .2
            .clone()
    };
    for (role, name) in [
        ("heading", "darkport port map"),
        ("search", ""),
        ("main", ""),
        ("searchbox", "Filter by number, range, service or process"),
        ("group", "Protocol"),
        ("group", "Show only ports that are"),
        ("group", "Shades of the ports"),
        ("button", "Unexpected 0"),
        ("application", "TCP ports"),
        ("application", "UDP ports"),
        ("heading", "Listening sockets"),
        ("columnheader", "Process"),
        ("heading", "Watched ports"),
        ("columnheader", "Opened"),
        ("region", "The port"),
    ] {
        find(role, name);
    }
    let property = |node: &Value, name: &str| {
        let all = node["properties"].as_array().unwrap().iter();
        let found = all.clone().find(|property| property["name"] == name);
        found
            .map(|property| property["value"]["value"].clone())
            .unwrap_or_default()
    };
    assert_eq!(property(&find("button", "Unexpected"), "pressed"), "false");
    let plane = find("application", "TCP ports");
    let keys = plane["description"]["value"].as_str().unwrap_or_default();
    assert!(keys.contains("move over the ports"), "{plane}");
    assert_eq!(property(&plane, "focusable"), true);
    assert_eq!(property(&find("status", ""), "live"), "polite");
    let news = find("log", "Since this page was opened");
    assert_eq!(property(&news, "live"), "polite");
    // Nothing that can be reached is without a name.
    for (role, name, node) in &nodes {
        let is_reached = property(node, "focusable") == true && role != "RootWebArea";
        assert!(!is_reached || !name.is_empty(), "{role}: {node}");
    }

    // A change is told where it is heard, and the focused port, too.
    let _listener = TcpListener::bind(("127.0.0.1", forbidden)).unwrap();
    let opened = format!("{forbidden}/tcp is lit");
    wait_for("the change", || {
        let nodes = tree();
        nodes
            .iter()
            .any(|(_, name, _)| name.contains(&opened))
            .then_some(())
    });
    browser.run("seek.focus()");
    browser.write(&forbidden.to_string());
    browser.press(&[ENTER]);
    let said = format!("{forbidden} TCP. ");
    wait_for("the port to be said", || {
        let nodes = tree();
        nodes
            .iter()
            .any(|(_, name, _)| name.starts_with(&said))
            .then_some(())
    });
    let live = browser.run("return document.getElementById('say').getAttribute('aria-live')");
    assert_eq!(live, "polite");
}

/// Leaves pictures for eyes to look at, where `DARKPORT_PICTURES` names a directory.
fn picture(browser: &Browser, name: &str) {
    use base64::Engine as _;

    let Some(directory) = std::env::var_os("DARKPORT_PICTURES") else {
        return;
    };
    let answer = browser.tell(
        "goog/cdp/execute",
        &json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true}}),
    );
    let png = base64::engine::general_purpose::STANDARD
        .decode(answer["data"].as_str().unwrap())
        .unwrap();
    std::fs::write(
        std::path::Path::new(&directory).join(format!("{name}.png")),
        png,
    )
    .unwrap();
}
