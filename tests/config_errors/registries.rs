//! `registry` of feature_store.yaml: which place it means, and what larder cannot honour.

use std::{fs, path::Path};

use larder::{
    config::{Config, Sources, Surroundings},
    model::Secret,
    registry::{
        Bucket, ObjectSettings, RegistrySettings, RemoteSettings, SqlDialect, SqlSettings, SqlTls,
        Token,
    },
    tls::{ClientIdentity, TlsSettings, Verify},
};

const FOLDER: &str = "/work-of-tests";

/// What is read, as settings and warnings, or all that is wrong.
fn read(
    registry: &str,
    variables: &[(&str, &str)],
) -> Result<(RegistrySettings, Vec<String>), String> {
    let repo = tempfile::tempdir().unwrap();
    let yaml = format!("project: p\nregistry: {registry}\n");
    fs::write(repo.path().join("feature_store.yaml"), yaml).unwrap();
    let sources = Sources { chdir: Some(repo.path().into()), ..Sources::default() };
    let mut surroundings =
        Surroundings { working_directory: FOLDER.into(), cores: 1, ..Surroundings::default() };
    for (name, value) in variables {
        surroundings.environment.insert((*name).into(), (*value).into());
    }
    match Config::load(&sources, &surroundings) {
        Ok(config) => {
            let warnings = config.warnings.iter().map(ToString::to_string).collect();
            Ok((config.feast.registry, warnings))
        }
        Err(errors) => Err(errors.to_string()),
    }
}

#[track_caller]
fn settings(registry: &str, variables: &[(&str, &str)]) -> RegistrySettings {
    let (settings, warnings) = read(registry, variables).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(warnings, [""; 0], "{registry}");
    settings
}

fn object(bucket: Bucket, key: &str) -> RegistrySettings {
    RegistrySettings::Object(ObjectSettings { bucket, key: key.into(), ca: None })
}

fn s3(bucket: &str, endpoint: Option<&str>) -> Bucket {
    Bucket::S3 { bucket: bucket.into(), endpoint: endpoint.map(Into::into) }
}

#[test]
fn objects_are_found_by_feasts_urls() {
    assert_eq!(settings("s3://Team-B/a//b.db", &[]), object(s3("team-b", None), "a//b.db"));
    let endpoints =
        [("AWS_ENDPOINT_URL", "http://aws:1"), ("FEAST_S3_ENDPOINT_URL", "http://feast:1")];
    let explicit = "{path: s3://b/k, registry_store_type: S3RegistryStore}";
    assert_eq!(settings(explicit, &endpoints), object(s3("b", Some("http://feast:1")), "k"));
    assert_eq!(settings("s3://b/k", &endpoints[..1]), object(s3("b", Some("http://aws:1")), "k"));
    let with_ca = settings("s3://b/k", &[("AWS_CA_BUNDLE", "ca.pem")]);
    let RegistrySettings::Object(ObjectSettings { ca, .. }) = with_ca else { panic!() };
    assert_eq!(ca.as_deref(), Some(&*Path::new(FOLDER).join("ca.pem")));

    let gcs = |emulator: Option<&str>| Bucket::Gcs {
        bucket: "b".into(),
        emulator: emulator.map(Into::into),
    };
    assert_eq!(settings("gs://b/k", &[]), object(gcs(None), "k"));
    let emulator = [("STORAGE_EMULATOR_HOST", "localhost:9023")];
    let at = gcs(Some("http://localhost:9023"));
    assert_eq!(settings("gs://b/k", &emulator), object(at, "k"));
}

#[test]
fn blobs_of_azure_are_found_by_feasts_url_and_the_shorter_ones() {
    let azure = |account: Option<&str>, endpoint: Option<&str>, key: Option<&str>| Bucket::Azure {
        account: account.map(Into::into),
        endpoint: endpoint.map(Into::into),
        container: "c".into(),
        access_key: key.map(|key| Secret(key.into())),
    };
    let https = |host: &str| {
        format!("{{registry_store_type: AzureRegistryStore, path: 'https://{host}/c/d/r.db'}}")
    };
    let usual = https("acc.blob.core.windows.net");
    assert_eq!(settings(&usual, &[]), object(azure(Some("acc"), None, None), "d/r.db"));
    assert_eq!(
        settings(&usual, &[("REGISTRY_BLOB_KEY", "k")]),
        object(azure(Some("acc"), None, Some("k")), "d/r.db")
    );
    let private = https("acc.internal.example");
    let endpoint = Some("https://acc.internal.example");
    assert_eq!(settings(&private, &[]), object(azure(Some("acc"), endpoint, None), "d/r.db"));
    let lake = "abfss://c@acc.dfs.core.windows.net/d/r.db";
    assert_eq!(settings(lake, &[]), object(azure(Some("acc"), None, None), "d/r.db"));
    let account = [("AZURE_STORAGE_ACCOUNT_NAME", "acc")];
    assert_eq!(settings("az://c/r.db", &account), object(azure(None, None, None), "r.db"));
    let nobody = read("az://c/r.db", &[]).unwrap_err();
    assert!(nobody.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{nobody}");
}

fn server(dialect: SqlDialect) -> SqlSettings {
    SqlSettings {
        dialect,
        host: Some("h".into()),
        port: None,
        socket: None,
        user: Some("u".into()),
        password: Some(Secret("p@w".into())),
        database: Some("d".into()),
        options: Vec::new(),
        tls: None,
    }
}

fn sql(url: &str) -> String {
    format!("{{registry_type: sql, path: '{url}'}}")
}

#[test]
fn databases_are_found_by_sqlalchemys_urls() {
    for url in ["postgresql://u:p%40w@h/d", "postgresql+psycopg://u:p%40w@h/d"] {
        let expected = RegistrySettings::Sql(server(SqlDialect::Postgres));
        assert_eq!(settings(&sql(url), &[]), expected);
    }
    for url in ["mysql://u:p%40w@h/d", "mysql+pymysql://u:p%40w@h/d?charset=utf8mb4"] {
        let expected = RegistrySettings::Sql(server(SqlDialect::MySql));
        assert_eq!(settings(&sql(url), &[]), expected);
    }
    let file = Path::new(FOLDER).join("r.db");
    assert_eq!(settings(&sql("sqlite:///r.db"), &[]), RegistrySettings::Sqlite(file));

    // Who only reads is to read from a replica.
    let replica = "{registry_type: sql, path: 'mysql://u@h/d', \
                   read_path: 'postgresql://u:p%40w@h/d?options=-csearch_path%3Dml'}";
    let options = vec![("search_path".to_owned(), "ml".to_owned())];
    let expected = SqlSettings { options, ..server(SqlDialect::Postgres) };
    assert_eq!(settings(replica, &[]), RegistrySettings::Sql(expected));
    let socket = settings(&sql("postgresql://u:p%40w@/d?host=/run/postgresql&port=5433"), &[]);
    let expected = SqlSettings {
        host: None,
        socket: Some("/run/postgresql".into()),
        port: Some(5433),
        ..server(SqlDialect::Postgres)
    };
    assert_eq!(socket, RegistrySettings::Sql(expected));
}

#[test]
fn tls_to_a_database_is_as_the_drivers_of_feast_have_it() {
    let tls = |registry: &str| match settings(registry, &[]) {
        RegistrySettings::Sql(settings) => settings.tls,
        other => panic!("{other:?}"),
    };
    let always = |ca: Option<&str>, verify| {
        let ca = ca.map(|ca| Path::new(FOLDER).join(ca));
        Some(SqlTls::Always(TlsSettings { ca, identity: None, verify }))
    };
    let postgres = |query: &str| tls(&sql(&format!("postgresql://h/d?{query}")));
    assert_eq!(postgres("sslmode=disable"), Some(SqlTls::Off));
    assert_eq!(postgres("sslmode=prefer"), Some(SqlTls::IfOffered));
    assert_eq!(postgres("sslmode=require"), always(None, Verify::Nothing));
    assert_eq!(
        postgres("sslmode=require&sslrootcert=ca.pem"),
        always(Some("ca.pem"), Verify::Authority)
    );
    assert_eq!(
        postgres("sslmode=verify-full&sslrootcert=ca.pem"),
        always(Some("ca.pem"), Verify::Full)
    );
    assert_eq!(postgres("sslrootcert=system"), always(None, Verify::Full));

    let mysql = |query: &str| tls(&sql(&format!("mysql://h/d?{query}")));
    assert_eq!(mysql("ssl_ca=ca.pem"), always(Some("ca.pem"), Verify::Full));
    assert_eq!(
        mysql("ssl_ca=ca.pem&ssl_check_hostname=false"),
        always(Some("ca.pem"), Verify::Authority)
    );
    let arguments = "{registry_type: sql, path: 'mysql://h/d', sqlalchemy_config_kwargs: \
                     {echo: false, pool_pre_ping: true, connect_args: {ssl: {ca: ca.pem}}}}";
    assert_eq!(tls(arguments), always(Some("ca.pem"), Verify::Full));
}

#[test]
fn a_registry_server_is_asked_as_feast_asks_it() {
    let remote = |more: &str, variables: &[(&str, &str)]| {
        let text = format!("{{registry_type: remote, path: 'feast:6570'{more}}}");
        let (settings, _) = read(&text, variables).unwrap_or_else(|error| panic!("{error}"));
        match settings {
            RegistrySettings::Remote(settings) => settings,
            other => panic!("{other:?}"),
        }
    };
    let path = |name: &str| Path::new(FOLDER).join(name);
    let plain =
        RemoteSettings { address: "feast:6570".into(), tls: None, authority: None, token: None };
    assert_eq!(remote("", &[]), plain);
    let tls = |ca: Option<&str>| {
        Some(TlsSettings { ca: ca.map(path), identity: None, verify: Verify::Full })
    };
    assert_eq!(remote(", cert: ca.pem", &[]).tls, tls(Some("ca.pem")));
    assert_eq!(remote(", is_tls: true", &[]).tls, tls(None));
    let variables = [("SSL_CERT_FILE", "env.pem"), ("REQUESTS_CA_BUNDLE", "not.pem")];
    assert_eq!(remote(", is_tls: true", &variables).tls, tls(Some("env.pem")));

    let mutual =
        remote(", is_tls: true, client_cert: c, client_key: k, authority: feast.example", &[]);
    let identity = ClientIdentity { certificate: path("c"), key: path("k") };
    assert_eq!(mutual.tls.unwrap().identity, Some(identity));
    assert_eq!(mutual.authority.as_deref(), Some("feast.example"));

    let token = remote("", &[("LARDER_REGISTRY_TOKEN", "t")]).token;
    assert_eq!(token, Some(Token::Text(Secret("t".into()))));
    let both = [("LARDER_REGISTRY_TOKEN", "t"), ("LARDER_REGISTRY__TOKEN_FILE", "token")];
    assert_eq!(remote("", &both).token, Some(Token::File(path("token"))));
    let (_, warnings) = read("{registry_type: remote, path: 'feast:1'}", &both).unwrap();
    assert!(warnings[0].contains("whoever is on the way sees the token"), "{warnings:?}");
}

#[test]
fn what_cannot_be_honoured_is_named_without_a_secret() {
    let psql = |query: &str| sql(&format!("postgresql://u:s3cret@h/d?{query}"));
    for (registry, expected) in [
        ("hdfs://n/r.db".into(), "registry: is at `hdfs://`"),
        ("https://a.blob.core.windows.net/c/b".into(), "registry_store_type: AzureRegistryStore"),
        ("postgresql://u:s3cret@h/d".into(), "registry: is at `postgresql://`; larder reads"),
        ("s3://bucket-alone".into(), "registry: expected s3://BUCKET/KEY"),
        (
            "{path: x, registry_type: snowflake.registry}".into(),
            "registry_type: is `snowflake.registry`",
        ),
        ("{path: x, registry_store_type: HDFSRegistryStore}".into(), "is `HDFSRegistryStore`"),
        ("{registry_type: file}".into(), "registry.path: is missing"),
        (sql("u:s3cret@h"), "registry.path: is no SQLAlchemy URL"),
        (sql("oracle://u:s3cret@h/d"), "is of `oracle`; larder reads"),
        (sql("mysql+asyncmy://u:s3cret@h/d"), "is of `mysql+asyncmy`"),
        (sql("sqlite://"), "SQLite database in memory"),
        (psql("sslcrl=s3cret"), "has the option `sslcrl`, which larder cannot honour"),
        (psql("sslmode=s3cure"), "has the unknown sslmode `s3cure`"),
        (psql("sslcert=c"), "a client's certificate or its key without the other"),
        (psql("options=s3cret"), "has the option `options`, expected"),
        (psql("host=a,b"), "has the option `host`, of which larder reads one"),
        ("{registry_type: remote, path: feast}".into(), "expected HOST:PORT"),
        (
            "{registry_type: remote, path: 'f:1', client_cert: c}".into(),
            "registry.client_key: is missing",
        ),
    ] {
        let error = read(&registry, &[]).expect_err(&registry);
        assert!(error.contains(expected), "{registry}: {error}");
        assert!(!error.contains("s3cret"), "{registry}: {error}");
    }
    let (_, warnings) = read(&psql("gssencmode=s3cret"), &[]).unwrap();
    assert!(warnings[0].contains("`gssencmode`, which is not used here"), "{warnings:?}");
    assert!(!warnings[0].contains("s3cret"));
}

#[test]
fn a_registrys_place_is_named_without_user_and_password() {
    let named = |registry: &str| settings(registry, &[]).to_string();
    assert_eq!(named(&sql("mysql://u:p@h:3307/d")), "mysql://h:3307/d");
    assert_eq!(named("s3://b/k"), "s3://b/k");
    let secret = format!("{:?}", settings(&sql("mysql://u:s3cret@h/d"), &[]));
    assert!(!secret.contains("s3cret"), "{secret}");
}
