use super::*;
use crate::record::{About, Machine, Missing, Run, Sample, ServerVersion, Target, Wrong};

fn run(servers: &[&str]) -> Record {
    let version =
        |name: &&str| ServerVersion { name: (*name).to_owned(), version: format!("{name} 1.0") };
    Record::Run(Run {
        version: 1,
        started: "2026-11-22T01:02:03Z".to_owned(),
        command: "ringport-bench --rounds 3".to_owned(),
        machine: Machine {
            cpu: "Some CPU".to_owned(),
            cores: 2,
            kernel: "Linux 6.18".to_owned(),
            memory_bytes: 8 << 30,
            network: "loopback, cubic".to_owned(),
        },
        servers: servers.iter().map(version).collect(),
        rounds: 3,
        server_cores: vec![0],
        client_cores: vec![1],
        quick: false,
    })
}

fn about(scenario: &str, headline: &str, more_is_better: bool, targets: Vec<Target>) -> Record {
    Record::Scenario(About {
        scenario: scenario.to_owned(),
        measures: "Some sentence.".to_owned(),
        headline: headline.to_owned(),
        more_is_better,
        also: vec!["cpu_us_per_request".to_owned(), "client_busy_percent".to_owned()],
        peer: Some("nginx".to_owned()),
        targets,
    })
}

fn sample(scenario: &str, server: &str, round: u32, metrics: &[(&str, f64)]) -> Record {
    Record::Sample(Sample {
        scenario: scenario.to_owned(),
        case: "64 connections".to_owned(),
        server: server.to_owned(),
        round,
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        ..Sample::default()
    })
}

/// Three rounds of two servers, in which the machine was slow in the second.
fn rounds() -> Vec<Record> {
    let at_least = Target::least("requests_per_second", 1.4).times("nginx");
    let at_most = Target::most("cpu_us_per_request", 7.5);
    let mut records = vec![
        run(&["ringport", "nginx"]),
        about("manifest_hit", "requests_per_second", true, vec![at_least, at_most]),
    ];
    for (round, ours, theirs) in [(1, 150.0, 100.0), (2, 60.0, 50.0), (3, 160.0, 100.0)] {
        for (server, rate, busy) in [("nginx", theirs, 50.0), ("ringport", ours, 99.0)] {
            let cpu = ("cpu_us_per_request", 1000.0 / rate);
            let metrics = [("requests_per_second", rate), cpu, ("client_busy_percent", busy)];
            records.push(sample("manifest_hit", server, round, &metrics));
        }
    }
    records
}

#[test]
fn ratios_are_taken_within_rounds() {
    let figures = Figures::of(&rounds());
    let case = &figures.scenarios[0].cases[0];
    let ratio = case.ratio("requests_per_second", "nginx").unwrap();
    assert_eq!((ratio.median, ratio.min, ratio.max, ratio.rounds), (1.5, 1.2, 1.6, 3));
    let ours = case.server("ringport").unwrap();
    let spread = ours.spread("requests_per_second").unwrap();
    assert_eq!((spread.median, spread.min, spread.max), (150.0, 60.0, 160.0));
    assert!(ours.is_client_bound("requests_per_second"));
    assert!(!ours.is_client_bound("cpu_us_per_request"), "which no client can set");
    assert!(!case.server("nginx").unwrap().is_client_bound("requests_per_second"));
    let met: Vec<_> = case.verdicts.iter().map(|verdict| verdict.met).collect();
    assert_eq!(met, [Some(true), Some(true)], "1.5 of 1.4, and 6.67 µs of 7.5");
}

#[test]
fn a_round_that_one_server_lacks_is_in_no_ratio() {
    let mut records = rounds();
    records.retain(
        |record| !matches!(record, Record::Sample(s) if s.server == "nginx" && s.round != 2),
    );
    let figures = Figures::of(&records);
    let ratio = figures.scenarios[0].cases[0].ratio("requests_per_second", "nginx").unwrap();
    assert_eq!((ratio.median, ratio.rounds), (1.2, 1));
    assert_eq!(figures.scenarios[0].cases[0].verdicts[0].met, Some(false));
    assert!(table(&records).contains("≥ 1.40 × nginx: 1.20 × MISSED"), "{}", table(&records));
}

#[test]
fn runs_one_behind_the_other_are_one() {
    let mut records = rounds();
    records.extend(rounds());
    let figures = Figures::of(&records);
    let case = &figures.scenarios[0].cases[0];
    assert_eq!(case.ratio("requests_per_second", "nginx").unwrap().rounds, 6);
}

#[test]
fn the_table_is_aligned_and_says_what_bounds() {
    let text = table(&rounds());
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(lines.len(), 4, "{text}");
    let width = lines[0].chars().count();
    assert!(lines.iter().all(|line| line.chars().count() == width), "{text}");
    assert!(lines[2].contains("| ringport | 150/s *           | 60.0/s – 160/s |"), "{text}");
    assert!(
        lines[3].contains("| nginx    | 100/s             | 50.0/s – 100/s | 1.50 ×"),
        "{text}"
    );
    assert!(text.contains("\\* the load's cores"), "{text}");
    assert!(text.contains("Targets: 2 met, 0 missed, 0 not measured."), "{text}");
}

#[test]
fn whatever_a_record_says_stays_text() {
    let evil = "<script>alert('x')</script>&\"";
    let mut records = vec![run(&["ringport", evil])];
    records.push(about(evil, evil, true, vec![Target::least(evil, 1.0).times(evil)]));
    for server in ["ringport", evil] {
        let Record::Sample(mut one) = sample(evil, server, 1, &[(evil, 1.0)]) else { return };
        evil.clone_into(&mut one.case);
        records.push(Record::Sample(one));
    }
    let text = || evil.to_owned();
    records.push(Record::Missing(Missing { server: text(), scenario: Some(text()), why: text() }));
    records.push(Record::Wrong(Wrong {
        scenario: text(),
        case: text(),
        server: text(),
        round: 1,
        what: text(),
    }));
    let page = html(&records);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.matches("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;").count() > 9);
}

#[test]
fn the_page_fetches_nothing() {
    let page = html(&rounds());
    for word in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(word), "{word} in {page}");
    }
    assert!(page.contains("<svg role=\"img\" aria-label=\"nginx: 100/s\">"), "{page}");
    assert!(page.contains("1.50 ×"), "{page}");
}

#[test]
fn nothing_is_a_page_too() {
    for records in [vec![], vec![run(&[])], vec![about("a", "b", true, vec![])]] {
        assert!(html(&records).ends_with("</html>\n"));
        assert!(!table(&records).contains('|'));
    }
    let broken = [
        ("latency_p99_us", f64::NAN),
        ("latency_p50_us", 0.0),
        ("requests_per_second", f64::INFINITY),
    ];
    for metric in ["latency_p99_us", "latency_p50_us", "requests_per_second", "none"] {
        let records = [about("x", metric, false, vec![]), sample("x", "ringport", 1, &broken)];
        let page = html(&records);
        assert!(!page.contains("NaN") && !page.contains("inf%"), "{page}");
    }
}

#[test]
fn a_bar_that_would_hide_the_others_is_cut() {
    let mut records = vec![about("manifest_hit", "cpu_us_per_request", false, vec![])];
    for (server, cpu) in [("ringport", 7.0), ("nginx", 10.0), ("docker-registry", 840.0)] {
        records.push(sample("manifest_hit", server, 1, &[("cpu_us_per_request", cpu)]));
    }
    let page = html(&records);
    // Four times nginx is the end of the scale.
    assert!(page.contains("<rect class=\"c1\" y=\"3\" width=\"25.00%\""), "{page}");
    assert!(page.contains("A bar with a notched end is cut."), "{page}");
    assert_eq!(page.matches("\"notch\"").count(), 1, "{page}");
}

#[test]
fn a_machine_that_others_used_is_told() {
    let mut records = rounds();
    assert!(Figures::of(&records).disturbance().is_none());
    for record in &mut records {
        if let Record::Sample(sample) = record {
            sample.metrics.insert("others_busy_percent".to_owned(), 31.0);
        }
    }
    assert!(html(&records).contains("31 % busy meanwhile"));
    assert!(table(&records).contains("31 % busy meanwhile"));
}

#[test]
fn latencies_stand_on_a_logarithmic_scale() {
    let mut records = vec![about("hot_beside_warm", "latency_p99_us", false, vec![])];
    for (server, p50, p99, max) in
        [("ringport", 310.0, 1000.0, 4000.0), ("nginx", 7900.0, 25_900.0, 90_000.0)]
    {
        let metrics = [("latency_p50_us", p50), ("latency_p99_us", p99), ("latency_max_us", max)];
        records.push(sample("hot_beside_warm", server, 1, &metrics));
    }
    let page = html(&records);
    // From 100 µs to 100 ms are three decades: 1 ms is a third of the way.
    assert!(page.contains("<svg class=\"at\" x=\"33.33%\">"), "{page}");
    assert!(page.contains("<text x=\"66.67%\" y=\"12\">10 ms</text>"), "{page}");
    assert!(page.contains("310 µs · 1.00 ms"), "{page}");
}
