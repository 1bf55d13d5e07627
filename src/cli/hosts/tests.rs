//! Each file is read by a parser of its format, as its client would.

use saphyr::{LoadableYamlNode, Yaml};

use super::*;

const HTTP: &str = "http://127.0.0.1:5000";
const HTTPS: &str = "https://mirror.example";

fn url(text: &str) -> EndpointUrl {
    EndpointUrl::parse(text).expect(text)
}

fn config() -> Config {
    let text = "[[upstream]]\nnamespace = \"docker.io\"\n\
                [[upstream]]\nnamespace = \"quay.io\"\naliases = [\"q.example:5000\"]\n\
                [[upstream]]\nnamespace = \"localhost:5711\"";
    Config::parse(text, "t.toml").expect("accepted")
}

#[test]
fn containerd_has_one_host_for_pull_and_resolve() {
    for mirror in [HTTP, HTTPS] {
        let file = containerd(&url(mirror));
        let hosts: toml::Table = file.text.parse().expect("TOML");
        let host = &hosts["host"][mirror];
        let capabilities: Vec<_> =
            host["capabilities"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        assert_eq!(capabilities, ["pull", "resolve"]);
        assert_eq!(hosts.len(), 1, "no `server`: the registry itself stays the fall-back");
        assert!(file.text.contains("/etc/containerd/certs.d/_default/hosts.toml"));
        assert_eq!(file.text.contains("# ca = "), mirror == HTTPS);
    }
}

#[test]
fn docker_has_one_mirror_and_hints_at_the_rest() {
    let file = docker(&url(HTTP), &config());
    let daemon: serde_json::Value = serde_json::from_str(&file.text).expect("JSON");
    assert_eq!(daemon, serde_json::json!({ "registry-mirrors": [HTTP] }));
    assert!(file.remarks.contains("/etc/docker/certs.d/_default/hosts.toml"));
    assert!(file.remarks.contains("default_upstream"), "{}", file.remarks);
    let embedded = Config::embedded().expect("accepted");
    assert!(!docker(&url(HTTP), &embedded).remarks.contains("default_upstream"));
    assert!(docker(&url(HTTPS), &embedded).remarks.contains("certs.d/mirror.example/ca.crt"));
}

#[test]
fn podman_has_an_entry_for_each_registry_with_its_name_in_the_path() {
    let registries = |mirror: &str| {
        let file = podman(&url(mirror), &config());
        let conf: toml::Table = file.text.parse().expect("TOML");
        conf["registry"].as_array().expect("registries").clone()
    };
    let plain = registries(HTTP);
    let hosts: Vec<_> = plain.iter().map(|entry| entry["prefix"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["docker.io", "quay.io", "q.example:5000"]);
    for entry in &plain {
        let host = entry["prefix"].as_str().unwrap();
        assert_eq!(entry["location"].as_str(), Some(host));
        let mirrors = entry["mirror"].as_array().unwrap();
        assert_eq!(mirrors.len(), 1);
        let in_path = if host == "q.example:5000" { "quay.io" } else { host };
        let location = format!("127.0.0.1:5000/{in_path}");
        assert_eq!(mirrors[0]["location"].as_str(), Some(location.as_str()));
        assert_eq!(mirrors[0]["insecure"].as_bool(), Some(true));
    }
    let text = podman(&url(HTTP), &config()).text;
    assert!(text.contains("\n# localhost:5711 is left out"), "{text}");
    let secure = &registries(HTTPS)[0]["mirror"][0];
    assert_eq!(secure["location"].as_str(), Some("mirror.example/docker.io"));
    assert!(secure.get("insecure").is_none());
}

#[test]
fn k3s_has_one_endpoint_for_all() {
    for mirror in [HTTP, HTTPS] {
        let file = k3s(&url(mirror));
        let documents = Yaml::load_from_str(&file.text).expect("YAML");
        assert_eq!(documents.len(), 1);
        let endpoint = &documents[0]["mirrors"]["*"]["endpoint"][0];
        assert_eq!(endpoint.as_str(), Some(mirror));
        assert!(file.text.contains("/etc/rancher/k3s/registries.yaml"));
        // What is commented out must be right once it is not.
        let uncommented = file.text.replace("\n# configs", "\nconfigs").replace("\n#   ", "\n  ");
        let documents = Yaml::load_from_str(&uncommented).expect("YAML");
        let configs = documents[0].as_mapping_get("configs");
        assert_eq!(configs.is_some(), mirror == HTTPS);
        if let Some(configs) = configs {
            assert!(configs["mirror.example"]["tls"]["ca_file"].as_str().is_some());
        }
    }
}

#[test]
fn run_prints_the_file_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ringport.toml");
    // The password's file is not on this machine.
    let text = "[[upstream]]\nnamespace = \"a.io\"\nusername = \"u\"\npassword_file = \"/none\"";
    std::fs::write(&path, text).expect("written");
    let args = |config| HostsArgs { client: Client::Podman, mirror: url(HTTP), config };
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    assert_eq!(run(&args(Some(path)), &mut out, &mut remarks).expect("written"), Exit::Well);
    assert!(String::from_utf8_lossy(&out).contains("127.0.0.1:5000/a.io"));
    assert!(remarks.is_empty());

    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    let missing = args(Some(folder.path().join("none.toml")));
    assert_eq!(run(&missing, &mut out, &mut remarks).expect("written"), Exit::Failed);
    assert!(out.is_empty() && String::from_utf8_lossy(&remarks).contains("none.toml"));
}
