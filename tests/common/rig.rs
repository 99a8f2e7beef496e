//! The whole thing: a database, the sandbox, and a daemon between them.

use std::sync::Arc;

use postrider::{
    rules::job::JobId,
    sandbox::{Sandbox, Setup},
};
use sqlx::PgPool;

use super::{
    TestDatabase,
    daemon::{Daemon, Postrider},
    database, eventually, free_port,
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
    _state: tempfile::TempDir,
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
        let mut config = format!(
            "state_dir = {:?}\n[database]\nurl = {:?}\n[webhook]\nlisten = \"127.0.0.1:{webhook_port}\"\n\
             [ops]\nlisten = \"127.0.0.1:{ops_port}\"\n",
            state.path(),
            database.url()
        );
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
        let postrider = Postrider::new(&config);
        Self {
            database,
            sandbox,
            postrider,
            config,
            webhook_port,
            ops_port,
            _state: state,
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
        eventually("the queue to be empty", || async {
            let left: i64 = sqlx::query_scalar("select count(*) from postrider.queue")
                .fetch_one(self.pool())
                .await
                .unwrap();
            (left == 0).then_some(())
        })
        .await;
    }
}

/// `count` telephone numbers of nobody.
pub(crate) fn recipients(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("+90532{:07}", 1_000_000 + n))
        .collect()
}
