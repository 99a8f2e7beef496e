//! The whole thing: a database, the sandbox, and a daemon between them.

use std::sync::Arc;

use postrider::{
    http::signature,
    rules::job::JobId,
    sandbox::{Sandbox, Setup},
};
use serde_json::Value;
use sqlx::PgPool;

use super::{
    TestDatabase, comes_to,
    daemon::{Daemon, Postrider},
    database, eventually, free_port,
    receiving::body,
};

/// A database, a sandbox and the configuration that joins them.
pub(crate) struct Rig {
    pub(crate) database: TestDatabase,
    pub(crate) sandbox: Sandbox,
    pub(crate) postrider: Arc<Postrider>,
    /// What `postrider` goes by, for tests that change it.
    pub(crate) config: String,
    pub(crate) webhook_port: u16,
    pub(crate) ops_port: u16,
    /// What of the configuration all instances have in common.
    common: String,
    _state: tempfile::TempDir,
}

/// One of several instances on the rig's database and sandbox: its own state directory and ports, the same configuration
/// otherwise. The sandbox calls the rig's own webhook port, so only `Rig::postrider`, or an instance that was made with
/// [`Rig::instance_on`] that port, hears receipts.
pub(crate) struct Instance {
    pub(crate) postrider: Arc<Postrider>,
    pub(crate) ops_port: u16,
    state: tempfile::TempDir,
}

impl Instance {
    /// Starts it with these arguments after `run`, and waits until it is ready. It logs every post.
    pub(crate) async fn start(&self, args: &[&str]) -> Daemon {
        let mut daemon = self.start_only(args);
        daemon.logs("ready").await;
        daemon
    }

    /// Starts it; it is not ready yet.
    pub(crate) fn start_only(&self, args: &[&str]) -> Daemon {
        self.postrider
            .start_logging(args, "info,postrider::posted=trace")
    }

    /// The id that it gave itself at its first start.
    pub(crate) fn id(&self) -> String {
        let id = std::fs::read_to_string(self.state.path().join("instance")).unwrap();
        id.trim().to_owned()
    }
}

impl Rig {
    /// With this sandbox, and `extra` at the end of the configuration.
    pub(crate) async fn new(setup: Setup, extra: &str) -> Self {
        Self::on(database().await, setup, extra).await
    }

    /// The same, on this database.
    pub(crate) async fn on(database: TestDatabase, setup: Setup, extra: &str) -> Self {
        let (webhook_port, ops_port) = (free_port(), free_port());
        let setup = setup.callback(&format!(
            "http://127.0.0.1:{webhook_port}/webhooks/whatsapp"
        ));
        let state = tempfile::tempdir().unwrap();
        let own = own_part(&state, webhook_port, ops_port);
        let mut config = format!("[database]\nurl = {:?}\n", database.url());
        for app in &setup.apps {
            config += &format!(
                "[[apps]]\nname = {:?}\napp_secrets = [{:?}]\nverify_token = \"verify\"\n",
                app.name, app.secret
            );
        }
        for account in &setup.accounts {
            config += &format!(
                "[[accounts]]\nwaba_id = {:?}\nportfolio_id = {:?}\napp = {:?}\ntoken = {:?}\n",
                account.waba_id, account.portfolio, account.app, account.token
            );
        }
        let numbers: Vec<&str> = setup
            .numbers
            .iter()
            .map(|number| number.id.as_str())
            .collect();
        config += &format!("[senders.default]\nnumbers = {numbers:?}\n");
        let sandbox = Sandbox::start(setup).await.unwrap();
        config += &format!("[whatsapp]\nbase_url = {:?}\n{extra}\n", sandbox.url());
        let common = config;
        let config = format!("{own}{common}");
        let postrider = Postrider::new(&config);
        Self {
            database,
            sandbox,
            postrider,
            config,
            webhook_port,
            ops_port,
            common,
            _state: state,
        }
    }

    /// A further instance, to whom the sandbox does not talk.
    pub(crate) fn instance(&self) -> Instance {
        self.instance_on(free_port())
    }

    /// A further instance that listens for webhooks on this port.
    pub(crate) fn instance_on(&self, webhook_port: u16) -> Instance {
        let state = tempfile::tempdir().unwrap();
        let ops_port = free_port();
        let own = own_part(&state, webhook_port, ops_port);
        Instance {
            postrider: Postrider::new(&format!("{own}{}", self.common)),
            ops_port,
            state,
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// Starts the daemon and waits until it is ready to send.
    pub(crate) async fn daemon(&self) -> Daemon {
        let mut daemon = self.postrider.start(&[]);
        daemon.logs("ready").await;
        daemon
    }

    /// Starts a daemon once, so that numbers, kinds and templates are in the database, and stops it again.
    pub(crate) async fn prepare(&self) {
        self.daemon().await.terminate().await;
    }

    /// Everybody among these opts in.
    pub(crate) async fn opt_in(&self, recipients: &[String]) {
        sqlx::query("select postrider.opt_in(recipient, 'test') from unnest($1::text[]) recipient")
            .bind(recipients)
            .execute(self.pool())
            .await
            .unwrap();
    }

    /// The states of all jobs, with how many are in each.
    pub(crate) async fn states(&self) -> std::collections::BTreeMap<String, i64> {
        sqlx::query_as("select state, count(*) from postrider.job_status group by state")
            .fetch_all(self.pool())
            .await
            .unwrap()
            .into_iter()
            .collect()
    }

    /// State and reason of one job.
    pub(crate) async fn job(&self, id: JobId) -> (String, Option<String>) {
        sqlx::query_as("select state, reason from postrider.job_status where id = $1")
            .bind(id.0)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Waits until a job is in this state.
    pub(crate) async fn becomes(&self, id: JobId, state: &str) {
        eventually(&format!("job {id} to become {state}"), || async {
            (self.job(id).await.0 == state).then_some(())
        })
        .await;
    }

    /// The provider tells the daemon something, beside what the sandbox does. It is answered with 200 once it is committed.
    pub(crate) async fn hears(&self, setup: &Setup, value: &Value) {
        let body = body(value);
        let secret = setup.apps[0].secret.clone().into();
        // Another test of this process may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/webhooks/whatsapp", self.webhook_port);
        let answer = client
            .post(url)
            .header(signature::HEADER, signature::sign(body.as_bytes(), &secret))
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Waits until a job has arrived on the phone; whether it is read then is up to the person.
    pub(crate) async fn arrives(&self, id: JobId) {
        eventually(&format!("job {id} to arrive"), || async {
            ["delivered", "read"]
                .contains(&self.job(id).await.0.as_str())
                .then_some(())
        })
        .await;
    }

    /// Waits until nothing is in the queue any more.
    pub(crate) async fn queue_is_empty(&self) {
        let none: Vec<(String, Option<String>, i32, i64)> = Vec::new();
        comes_to("the queue to be empty", none, || async {
            sqlx::query_as(
                "select state, reason, tries, count(*) from postrider.queue group by state, reason, tries",
            )
            .fetch_all(self.pool())
            .await
            .unwrap()
        })
        .await;
    }
}

/// What every instance has for itself.
fn own_part(state: &tempfile::TempDir, webhook_port: u16, ops_port: u16) -> String {
    format!(
        "state_dir = {:?}\n[webhook]\nlisten = \"127.0.0.1:{webhook_port}\"\n\
         [ops]\nlisten = \"127.0.0.1:{ops_port}\"\n",
        state.path()
    )
}

/// `count` telephone numbers of nobody.
pub(crate) fn recipients(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("+90532{:07}", 1_000_000 + n))
        .collect()
}
