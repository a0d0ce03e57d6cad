//! What goes wrong about recovery contacts.

use sr_client::ClientError;

use super::{Failure, NOTHING_DONE, exit};

/// Returns what to tell about an error, if it is about contacts.
pub(super) fn failure(error: &ClientError, title: &str) -> Option<Failure> {
    let make = |code, exit, meaning, did, next: &str| Failure {
        code,
        exit,
        title: title.to_owned(),
        meaning,
        did,
        next: vec![next.to_owned()],
    };
    Some(match error {
        ClientError::Contact { .. } => make(
            "CONTACT_REFUSED",
            exit::SECURITY,
            "What their server shows is not what their devices have signed, or not what it has shown before.",
            "Nothing was sealed to them. Nobody else is concerned.",
            "Ask them, over another channel, for a new card: `strongroom recovery contacts card`.",
        ),
        ClientError::ContactsReplaced => make(
            "CONTACTS_REPLACED",
            exit::WRONG_KIT,
            "The account has other contacts now, or none.",
            "Nothing was released.",
            "Ask the newer contacts, or use the recovery kit.",
        ),
        ClientError::ContactsWrong => make(
            "CONTACTS_WRONG",
            exit::USAGE,
            "One contact alone would be a second kit in somebody else's hands.",
            NOTHING_DONE,
            "Name at least two different people, and how many of them are needed with --need.",
        ),
        ClientError::ContactText => make(
            "CONTACT_TEXT",
            exit::WRONG_KIT,
            "Cards, shares, requests and answers are each for one purpose and one receiver.",
            NOTHING_DONE,
            "Ask for the file again; send it as a file, not as part of a message.",
        ),
        ClientError::NoRequest => make(
            "NO_REQUEST",
            exit::CONFLICT,
            "Contacts' answers are sealed to the request of one device.",
            NOTHING_DONE,
            "Make one with `strongroom recovery request --out FILE`, and give it to your contacts; or run \
                 this where you made it, with the same HOME and --profile.",
        ),
        ClientError::SharesWrong { .. } => make(
            "SHARES_WRONG",
            exit::WRONG_KIT,
            "Fewer shares than needed tell nothing at all.",
            "Nothing was sent.",
            "Ask further contacts; all answers must be to this device's request.",
        ),
        ClientError::ContactCardOld => make(
            "CONTACT_TEXT",
            exit::WRONG_KIT,
            "Witnesses keep anybody from being shown an account that others are not shown. Which ones, the card says.",
            NOTHING_DONE,
            "Ask them for a new card: `strongroom recovery contacts card`.",
        ),
        _ => return None,
    })
}
