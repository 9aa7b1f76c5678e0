//! Where credentials come from and which endpoints are asked: what the SDK's default chain finds in a pod, on a host and
//! in a profile, and the hosts of other partitions, FIPS and dual stack.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use aws::{HOUR, MINUTE};
use cloudtrail_tls_exporter::time::Timestamp;
use serde_json::json;
use support::Exporter;

const POD: &str = "222233334444";
const OTHER: &str = "333344445555";

fn arn(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/reader")
}

/// Two calls in a log group of an account, an hour ago.
fn deliver(double: &aws::Double, account: &str) {
    let group =
        json!([{"name": aws::GROUP, "account": account, "region": aws::REGION, "creationTime": 0}]);
    double.post("groups", &group);
    let at = Timestamp::now().minus(HOUR).floor(5 * MINUTE);
    let place = json!({"log_group": aws::GROUP, "account": account, "region": aws::REGION});
    let record = aws::record("s3", "GetObject", "TLSv1.1", at);
    double.deliver(&place, at, &[record.clone(), record]);
}

fn config(home: &Path, sources: &str) -> String {
    let config = home.join("config.toml");
    let state = home.join("state.db");
    let toml = format!("[state]\npath = '{}'\n{sources}", state.display());
    fs::write(&config, toml).unwrap();
    config.to_str().unwrap().to_owned()
}

/// The program over the double counts those two calls; it has only these variables to find credentials by.
fn counts(double: &aws::Double, home: &Path, environment: &[(&str, &str)], more: &str) {
    let config = config(
        home,
        &format!(
            "[[sources]]\nname = \"logs\"\ntype = \"logs_insights\"\nlog_groups = [\"{}\"]\nendpoint_url = \"{}\"\n\
             lookback = \"2h\"\ninterval = \"5m\"\n{more}",
            aws::GROUP,
            double.endpoint,
        ),
    );
    let mut environment = environment.to_vec();
    environment.extend([
        ("AWS_ENDPOINT_URL_STS", double.endpoint.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_REGION", aws::REGION),
    ]);
    let exporter = Exporter::start_in(&["--config.file", &config], &environment);
    exporter.scrape_until("two calls", |scrape| {
        (scrape.sum("cloudtrail_tls_calls_total", &[]) == 2.0).then_some(())
    });
    double.assert_sound();
}

#[test]
fn a_pod_with_a_token_of_its_cluster_is_its_role_and_assumes_others_from_there() {
    for (target, more) in [
        (POD, String::new()),
        (OTHER, format!("roles = [{{ arn = '{}' }}]\n", arn(OTHER))),
    ] {
        let double = aws::Double::start();
        double.post("sts", &json!({"start": true}));
        deliver(&double, target);
        double.post(
            "roles",
            &json!([
                {"arn": arn(POD), "trusts": [], "web_identity_token": "header.claims.signature"},
                {"arn": arn(OTHER), "trusts": [POD]},
            ]),
        );
        let home = tempfile::tempdir().unwrap();
        let token = home.path().join("token");
        fs::write(&token, "header.claims.signature").unwrap();
        let environment = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ROLE_ARN", &arn(POD)),
        ];
        counts(&double, home.path(), &environment, &more);
        assert!(aws::calls(&double.stats(), "AssumeRoleWithWebIdentity") >= 1);
    }
}

#[test]
fn a_profile_of_the_configuration_files_is_used() {
    let double = aws::Double::start();
    deliver(&double, aws::ACCOUNT);
    let home = tempfile::tempdir().unwrap();
    let profiles = home.path().join("credentials");
    let text = format!(
        "[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n[audit]\naws_access_key_id = {}\n\
         aws_secret_access_key = {}\n",
        aws::KEY,
        aws::SECRET
    );
    fs::write(&profiles, text).unwrap();
    let profiles = profiles.to_str().unwrap();
    let environment = [
        ("AWS_SHARED_CREDENTIALS_FILE", profiles),
        ("AWS_CONFIG_FILE", "/dev/null"),
    ];
    counts(&double, home.path(), &environment, "profile = \"audit\"\n");
}

/// A listener on loopback; each connection is answered by `answer`, given the lines of the request's head.
fn listen(answer: impl Fn(&[String], &mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            answer(&head, &mut stream);
        }
    });
    address
}

/// As the agent of EKS Pod Identity answers: to the right token, with a session.
#[test]
fn a_pod_with_an_identity_of_its_agent_is_that_role() {
    let double = aws::Double::start();
    deliver(&double, POD);
    let (key, secret, session) = ("ASIAPOD", "secret-of-the-pod", "session-of-the-pod");
    let credential =
        json!([{"access_key": key, "secret": secret, "session_token": session, "account": POD}]);
    double.post("credentials", &credential);
    let agent = listen(move |head, stream| {
        let authorized = head
            .iter()
            .any(|line| line.eq_ignore_ascii_case("authorization: token-of-the-pod"));
        let (status, body) = match authorized {
            true => {
                let given = json!({"AccessKeyId": key, "SecretAccessKey": secret, "Token": session,
                    "Expiration": Timestamp::now().plus(HOUR).to_string()});
                ("200 OK", given.to_string())
            }
            false => ("401 Unauthorized", String::new()),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).ok();
    });
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    fs::write(&token, "token-of-the-pod").unwrap();
    let uri = format!("http://{agent}/v1/credentials");
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            token.to_str().unwrap(),
        ),
    ];
    counts(&double, home.path(), &environment, "");
}

/// Told by a proxy, which sees the host that each source would reach and lets none of them through.
#[test]
fn partitions_fips_and_dual_stack_have_their_own_hosts() {
    let hosts = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&hosts);
    let proxy = listen(move |head, stream| {
        let host = head.first().and_then(|line| line.strip_prefix("CONNECT "));
        if let Some((host, _)) = host.and_then(|rest| rest.split_once(":443")) {
            seen.lock().unwrap().insert(host.to_owned());
        }
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            .ok();
    });
    let logs = |name: &str, more: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\ntype = \"logs_insights\"\nlog_groups = [\"trail\"]\n{more}\n"
        )
    };
    let history = |name: &str, more: &str| {
        format!("[[sources]]\nname = \"{name}\"\ntype = \"event_history\"\n{more}\n")
    };
    let sources = [
        logs("default", ""),
        logs("china", "region = \"cn-north-1\""),
        logs("government", "region = \"us-gov-west-1\"\nuse_fips = true"),
        logs("dual", "use_dual_stack = true"),
        history("history", "region = \"us-east-2\""),
        history("history_fips", "region = \"us-east-2\"\nuse_fips = true"),
    ];
    let expected: BTreeSet<String> = [
        "logs.eu-west-1.amazonaws.com",
        "logs.cn-north-1.amazonaws.com.cn",
        "logs.us-gov-west-1.amazonaws.com",
        "logs.eu-west-1.api.aws",
        "cloudtrail.us-east-2.amazonaws.com",
        "cloudtrail-fips.us-east-2.amazonaws.com",
    ]
    .map(str::to_owned)
    .into();
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path(), &sources.concat());
    let mut environment = aws::ENVIRONMENT.to_vec();
    let proxy = format!("http://{proxy}");
    environment.push(("HTTPS_PROXY", &proxy));
    let _exporter = Exporter::start_in(&["--config.file", &config], &environment);
    support::wait_for("every host", || {
        (*hosts.lock().unwrap() == expected).then_some(())
    });
}
