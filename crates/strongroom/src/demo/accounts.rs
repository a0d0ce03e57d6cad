//! Several devices, one taken out, everything from paper; and what the operator tries meanwhile.

use std::{path::PathBuf, thread};

use sr_adversary::operator::Accounts;
use sr_client::{Client, ClientError, DeviceKind, Linking, Progress, Target, compare};
use sr_wire::Misbehaviour;

use crate::{
    demo::{Attempt, Stage, adversary, local},
    failure::Failure,
    output::Output,
    status::clock,
};

impl Stage {
    /// Plays the rows about accounts.
    pub(crate) fn play_accounts(&self, output: &Output) -> Result<Vec<Attempt>, Failure> {
        output.note("..  linking a second device, and a laptop");
        self.link("second")?;
        self.link("laptop")?;
        let mut attempts = vec![self.restored(
            "(nothing: you link a second device)",
            "six words, typed crosswise, and no password",
            &mut self.device("second")?,
        )?];
        output.note("..  as the operator: adding a device of theirs to your account");
        attempts.push(self.add_a_ghost()?);
        output.note("..  making a recovery kit");
        let mut client = self.client()?;
        let (kit, _) = client.new_kit()?;
        client.set_kit(&kit, None)?;
        drop(client);
        output.note("..  taking the stolen laptop out, with an operator who helps the thief");
        let before = Accounts::read(&self.data()).map_err(adversary)?;
        self.client()?.revoke_device("laptop")?;
        attempts.push(self.swap_the_key()?);
        attempts.push(self.let_the_laptop_write(&before)?);
        output.note("..  restoring from the kit's 28 characters alone");
        let address = self.address()?.to_string();
        let mut from_paper =
            Client::restore_kit(&self.path("paper"), &address, &kit, "from-paper", clock())?;
        attempts.push(self.restored(
            "(nothing: you restore from paper alone)",
            "of the newest state that this server admits: compare its date",
            &mut from_paper,
        )?);
        Ok(attempts)
    }

    fn restored(
        &self,
        tried: &'static str,
        tell: &'static str,
        client: &mut Client,
    ) -> Result<Attempt, Failure> {
        let restored = self.dir.path().join("restored");
        let target = Target::Folder(restored.clone());
        client.restore("latest", Some(&self.folder), &target, &Progress::default())?;
        let comparison = compare(&self.folder, &restored, &self.skipped).map_err(local)?;
        std::fs::remove_dir_all(&restored).map_err(local)?;
        let held = comparison.different.is_empty() && comparison.files == comparison.identical;
        let happened = if held { "restored there, identical" } else { "DIFFERENT files" };
        Ok(Attempt { tried, happened: happened.into(), tell, held })
    }

    fn add_a_ghost(&self) -> Result<Attempt, Failure> {
        let accounts = Accounts::read(&self.data()).map_err(adversary)?;
        accounts.add_ghost(&self.data()).map_err(adversary)?;
        let happened = self.client()?.snapshots();
        accounts.put_back(&self.data()).map_err(adversary)?;
        Ok(refused(
            "add a device of theirs",
            happened.map(|_| ()),
            Misbehaviour::BlockForged,
            "`device ls` shows the devices that your devices have signed for, and no other",
        ))
    }

    /// The second device has not seen the new key yet, and is given another.
    fn swap_the_key(&self) -> Result<Attempt, Failure> {
        let accounts = Accounts::read(&self.data()).map_err(adversary)?;
        accounts.swap_key_block(&self.data()).map_err(adversary)?;
        let happened = self.device("second")?.snapshots();
        accounts.put_back(&self.data()).map_err(adversary)?;
        Ok(refused(
            "swap your account's key",
            happened.map(|_| ()),
            Misbehaviour::KeyBlockSwapped,
            "the key that a device takes is the one that another device has signed",
        ))
    }

    /// The operator shows the laptop the account as it was, and takes what it writes; then shows it
    /// to a device that knows of the removal.
    fn let_the_laptop_write(&self, before: &Accounts) -> Result<Attempt, Failure> {
        let now = Accounts::read(&self.data()).map_err(adversary)?;
        let expected = self.client()?.snapshots()?.len();
        before.put_back(&self.data()).map_err(adversary)?;
        let mut laptop = self.device("laptop")?;
        laptop.add_folder(&self.folder)?;
        let wrote = laptop.backup(None, &Progress::default());
        // Once the removal is in the log, the laptop's own program sees that it is shown the past.
        let notices = matches!(wrote, Err(ClientError::Misbehaviour(Misbehaviour::LogNotOwn)));
        let wrote = wrote.is_ok();
        drop(laptop);
        now.put_back(&self.data()).map_err(adversary)?;
        let shown = self.client()?.snapshots().map(|snapshots| snapshots.len());
        let shown_second = self.device("second")?.snapshots().map(|snapshots| snapshots.len());
        // From here on it is shown the truth, and its own program refuses.
        let refuses = matches!(self.device("laptop")?.snapshots(), Err(ClientError::DeviceRemoved));
        let goes_on = self.client()?.backup(None, &Progress::default()).is_ok();
        let is = |shown: &Result<usize, ClientError>| matches!(shown, Ok(n) if *n == expected);
        let held = (wrote || notices) && refuses && goes_on && is(&shown) && is(&shown_second);
        let happened = if held && notices {
            "REFUSED, SR-035: its own program saw the removal in the log".to_owned()
        } else if held {
            "REFUSED, SR-014: what it wrote counts nowhere".to_owned()
        } else {
            format!("wrote {wrote}, shown {shown:?} and {shown_second:?}, refuses {refuses}")
        };
        let tell = "your other devices know of the removal; it can't open what is stored since";
        Ok(Attempt { tried: "let your stolen laptop write", happened, tell, held })
    }

    fn link(&self, name: &str) -> Result<(), Failure> {
        let address = self.address()?.to_string();
        let mut linking = Linking::begin(&address, DeviceKind::Full, clock())?;
        let code = linking.code();
        let own = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (send, receive) = std::sync::mpsc::channel::<Vec<String>>();
        let words = thread::scope(|scope| {
            let old = scope.spawn(move || {
                let mut client = self.client()?;
                let offer = client.link(&code)?;
                let words = receive.recv().unwrap_or_default();
                client.link_finish(offer, &words)
            });
            let shown = linking.words()?;
            // A receiver that is gone has an error to tell.
            let _ = send.send(own(shown));
            let words = old.join().map_err(|_| ClientError::LinkExpired)??;
            linking.wait()?;
            Ok::<_, ClientError>(own(words))
        })?;
        linking.finish(&words, &self.path(name), name)?;
        Ok(())
    }

    fn device(&self, name: &str) -> Result<Client, ClientError> {
        Client::open(&self.path(name), clock())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn refused(
    tried: &'static str,
    happened: Result<(), ClientError>,
    expected: Misbehaviour,
    tell: &'static str,
) -> Attempt {
    let (happened, held) = match happened {
        Err(ClientError::Misbehaviour(why)) if why == expected => {
            (format!("REFUSED, {}: nothing sent, nothing shown", &why.to_string()[..6]), true)
        }
        Err(error) => (format!("another error: {error}"), false),
        Ok(()) => ("not noticed".to_owned(), false),
    };
    Attempt { tried, happened, tell, held }
}
