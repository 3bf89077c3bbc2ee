"""The faults that this product is tested against: what may go wrong, and what must be so then.

The letters: A files and crashes, B sweeping, C concurrency, D clocks, E master keys, F tampering, G backups,
H restoring, I destroying, J the audit log, K settings and start-up, L a server and its users, M secrets. A test says
which it is about (`@pytest.mark.fault`), and docs/reliability.md is made of both. `why_not` says what is not tested or
not built; a row with tests may have one too, for the part that they leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_FILES = "not built: values are swept in columns of databases, not in files"
NO_SERVER = "not built: there is no REST service and no dashboard, so nothing listens"
NO_KMS = "not built: there is no provider for a cloud's key service; master keys are texts, files, shares or an HSM"


@dataclass(frozen=True)
class Row:
    """One fault."""

    id: str
    fault: str
    expected: str
    why_not: str | None = None


ROWS: tuple[Row, ...] = (
    # --- A: files and crashes ---------------------------------------------------------------------
    Row(
        "A1",
        "killed just after the rotation's lock was taken",
        "the lock ends with the process; the next rotation runs",
    ),
    Row("A2", "killed while values are counted", "nothing is changed"),
    Row("A3", "killed between making a key and saving it", "that key never existed; the next run makes another"),
    Row("A4", "the machine gives no random bytes, or too few", "refused with an error of its own; no version is made"),
    Row("A5", "the random generator repeats itself", "refused before a key or nonce is used a second time"),
    Row("A6", "killed at any call while the keyring is saved", "the old keyring or the new one, whole"),
    Row("A7", "power lost between the rename and the directory's sync", "the old keyring or the new one, both valid"),
    Row("A8", "power lost in mid write", "only a temporary is torn; the keyring itself never is"),
    Row("A9", "the sync of a new file fails", "the change is given up and the disk read again; no sync is retried"),
    Row("A10", "the sync of a directory fails", "what the disk holds is read again before anything goes on"),
    Row("A11", "the volume is full or over its quota", "the old keyring is intact, the error names the volume"),
    Row("A12", "the volume became read-only", "nothing is changed, and values can still be read"),
    Row("A13", "a write is interrupted or takes a part only", "it is carried on until the file is exact"),
    Row("A14", "closing a written file fails", "it counts as a failed write"),
    Row("A15", "the disk gives back other bytes than were written", "noticed by reading back, before activation"),
    Row("A16", "no more file descriptors or memory of the kernel", "an error that says so; the next try works"),
    Row("A17", "killed at any call of an activation", "exactly one version is active, the old or the new one"),
    Row("A18", "killed after activating, before the database learns it", "the next change brings the database forward"),
    Row("A19", "the database would learn an epoch that was not saved", "impossible: the keyring is always saved first"),
    Row("A20", "killed between a change and its result in the audit log", "the next change records it as recovered"),
    Row("A21", "killed after a version was recorded as destroyed", "it is destroyed, and stays so"),
    Row("A22", "killed before a version was recorded as destroyed", "it is still scheduled, and can be cancelled"),
    Row("A23", "the volume is full while a destruction is saved", "nothing is destroyed"),
    Row("A24", "memory runs out in mid rotation", "an error or a kill; nothing is lost, and the next run ends it"),
    Row("A25", "asked to stop by a signal", "it stops within seconds, and the next run goes on from there"),
    Row(
        "A26", "the process is frozen for long and wakes up", "it looks again before it writes, and overwrites nothing"
    ),
    Row("A27", "temporaries of a hundred crashes lie about", "never loaded, and cleared away by the next change"),
    Row("A28", "going on after a crash crashes too, three deep", "going on again works; no good copy was removed"),
    Row(
        "A29",
        "the keyring is gone and the database holds values",
        "no new one is made; it says to put the old one back",
    ),
    Row("A30", "the keyring is empty, a link, a pipe, a directory", "refused at once, with what it is, and left alone"),
    # --- B: sweeping ------------------------------------------------------------------------------
    Row("B1", "killed at any call of a batch", "what was written stays, the rest follows in the next run"),
    Row("B2", "the connection breaks before a commit", "the batch is made again; a value is never wrapped twice"),
    Row("B3", "the connection breaks during a commit", "what the database holds decides, and nothing is lost"),
    Row("B4", "the database is killed and started again", "said; the next run goes on"),
    Row("B5", "a deadlock with the application", "the application wins, and the values are met again"),
    Row("B6", "a transaction cannot be serialised", "it is made again from a new read"),
    Row("B7", "rows are locked by somebody else", "passed by and met again; nobody waits long for us"),
    Row("B8", "SQLite is locked by another writer", "waited for a little, then met again"),
    Row("B9", "the database's disk is full, or it is a standby", "it stops, and nothing is called complete"),
    Row("B10", "the application changes a value between read and write", "the application's value stays"),
    Row("B11", "an application writes under the old version meanwhile", "the count finds it, and it is swept again"),
    Row("B12", "rows are added where the sweep has been", "the count finds them"),
    Row("B13", "a row is deleted between read and write", "it stays deleted, and is no failure"),
    Row("B14", "a row's primary key changes", "no value is written to another row; the application rebinds it"),
    Row("B15", "a value was altered", "left as it is and listed; the others go on, and the run is incomplete"),
    Row("B16", "a value is under a key that nobody knows", "left as it is, and listed with a reason of its own"),
    Row("B17", "plaintext lies in an encrypted column", "listed, or encrypted and counted where that is declared"),
    Row("B18", "no value, or an empty one", "null stays null, and the empty value comes back empty"),
    Row("B19", "the column is too narrow for ciphertext", "refused before a version is made; nothing is cut off"),
    Row("B20", "values of nothing up to 64 MiB, and more", "rewritten in small batches; more than that is refused"),
    Row("B21", "ciphertext copied from another row, column or key", "it does not open, and is listed"),
    Row("B22", "a primary key is spelled in two ways", "one key has one spelling, whatever its type"),
    Row(
        "B23",
        "ciphertext inside JSON",
        "found by looking at every column, and named",
        "not built: sweeping paths inside a JSON column",
    ),
    Row("B24", "a declared table or column is not there", "refused before a version is made"),
    Row("B25", "a column that nobody declared holds values of ours", "found and named; the version is not destroyed"),
    Row("B26", "a read gives no rows although there are some", "not taken for an empty table: incomplete"),
    Row("B27", "values are under the new version already", "not one byte of them is changed"),
    Row(
        "B28",
        "a trigger changes what is written, or other columns",
        "triggers are named beforehand; a value that one changes stays as it was",
        "not built: keeping a column such as updated_at from being touched by a trigger",
    ),
    Row("B29", "a rotation is due while another is unfinished", "the unfinished one is ended first"),
    Row("B30", "killed while a file with values is rewritten", "old or new, whole", NO_FILES),
    Row("B31", "a person edits a file while it is rewritten", "the person's text stays", NO_FILES),
    Row("B32", "a file with values is a link, read-only or gone", "that file is refused, the others go on", NO_FILES),
    Row("B33", "no room while a file with values is rewritten", "the file stays as it was", NO_FILES),
    Row("B34", "counting fails in the middle", "never called complete"),
    Row("B35", "the count would be read from a standby that lags", "refused: only the primary is counted"),
    Row("B36", "one value in many does not open", "incomplete, and said everywhere until it is mended"),
    # --- C: concurrency ---------------------------------------------------------------------------
    Row("C1", "two rotations at once", "one runs, the other says who does"),
    Row("C2", "one of two rotations is paused and wakes up", "it writes nothing over what the other did"),
    Row(
        "C3",
        "a batch takes very long",
        "a flock has no end of its own, and a lease is put off meanwhile: nobody takes it for dead",
    ),
    Row(
        "C4",
        "somebody else gives the lock back",
        "a flock is the kernel's own; of a lease only the number that took it gives it back",
    ),
    Row("C5", "a person and the scheduler rotate at once", "one version is made; the other is busy"),
    Row(
        "C6", "backup, restore, import, destroy during a rotation", "each one whole or refused; the rotation ends well"
    ),
    Row("C7", "a reader meets a version it does not know", "one look at the keyring for all threads, then it opens"),
    Row("C8", "a writer has not seen the new version yet", "it sees it within a second; what it wrote is swept later"),
    Row("C9", "a reader reads while the keyring is replaced", "it sees the old one or the new one"),
    Row("C10", "a flood of key ids that nobody knows", "each is refused without reading the keyring again"),
    Row("C11", "a process forks with an open keyring", "both go on, and no nonce is used twice"),
    Row(
        "C12",
        "a thread or task ends in mid encryption",
        "nothing half done is left behind",
        "encrypting is one call in memory, which keeps and writes nothing that could be half done",
    ),
    Row(
        "C13",
        "an application is older than the service's format",
        "a reader refuses a format that it does not know",
        "not built: there is one format of values so far, so nothing has to wait until readers know another",
    ),
    Row("C14", "a reader still holds a version that is to go", "it lets go of it within a second"),
    Row("C15", "two machines' clocks differ", "order is by epoch, never by time"),
    Row("C16", "writers, readers and a sweep, with kills", "no update is lost and no read fails"),
    # --- D: clocks --------------------------------------------------------------------------------
    Row("D1", "the clock is ten years ahead", "one rotation at most, and nothing is destroyed"),
    Row("D2", "the clock is ten years behind", "no storm of rotations, and no run is put off for years"),
    Row("D3", "the clock goes back while a destruction waits", "the waiting is not shortened"),
    Row("D4", "summer time, leap days, another time zone", "a planned time comes once"),
    Row("D5", "the host was off for thirty days", "one run makes up for it"),
    Row("D6", "started anew every 36 hours with a weekly plan", "the due time is kept, so each run is made once"),
    Row("D7", "200 restarts within a minute", "three attempts at most"),
    Row("D8", "an interval of nothing, less than nothing, or no number", "refused with its line"),
    Row("D9", "rotations keep failing", "each wait is longer, up to an hour; an alarm says it"),
    Row("D10", "a version has encrypted nearly 2^31 times", "it is due whatever the calendar says; the count leads"),
    # --- E: master keys ---------------------------------------------------------------------------
    Row(
        "E1", "the master key is out of reach at the start", "waited for; nothing is made, and nothing is in the clear"
    ),
    Row("E2", "it goes away before a version is made or destroyed", "nothing is changed"),
    Row("E3", "an HSM does not answer", "given up after the seconds that are set; open keyrings read on"),
    Row("E4", "it gives back other bytes than it was given", "they open nothing, and are refused"),
    Row("E5", "a version of a cloud's key is disabled", "refused to wrap with it", NO_KMS),
    Row("E6", "it goes away in mid sweep", "the run ends with an error, and the next one goes on"),
    Row("E7", "the provider rotates its own key", "what was wrapped before still opens", NO_KMS),
    Row("E8", "an HSM's session is lost, its PIN refused, the token gone", "said; a refused PIN is not tried again"),
    Row("E9", "a wrong master key", "said to be the wrong one, before anything is touched"),
    Row(
        "E10", "the master key's file changes under a running process", "open keyrings read on; new commands refuse it"
    ),
    Row("E11", "killed while a slot is wrapped anew", "it opens with the old or the new master key"),
    # --- F: tampering -----------------------------------------------------------------------------
    Row("F1", "any bit of the keyring is flipped", "refused, with what to put back"),
    Row("F2", "the keyring is cut at any length", "refused"),
    Row("F3", "states or the active version are edited", "the signature does not fit"),
    Row("F4", "another installation's keyring is put in place", "refused, and reads go on with the known one"),
    Row("F5", "an older copy of the keyring is put back", "nothing is encrypted or changed with it"),
    Row("F6", "the database is put back to last week", "values open; the next run brings them forward"),
    Row(
        "F7",
        "keyring, log and database are put back together",
        "noticed by a checkpoint kept elsewhere, and only by it",
    ),
    Row("F8", "the journal is forged", "it counts as empty; counts decide, not the journal"),
    Row("F9", "the epoch's row in the database is deleted or raised", "a finding; the service refuses what cannot be"),
    Row("F10", "any bit of a value is flipped", "it does not open, with an error of ours"),
    Row("F11", "a value or its tag is cut", "refused before it is decrypted"),
    Row("F12", "a value is made to look like an older format", "refused where the column does not declare that format"),
    Row("F13", "a value is given the id of another key", "it does not open"),
    Row("F14", "one key id with two materials", "refused"),
    Row(
        "F15",
        "an encrypted member of an application's settings is moved",
        "it does not open",
        "not built: settings files of applications are not encrypted",
    ),
    # --- G: backups -------------------------------------------------------------------------------
    Row("G1", "killed at any call of a backup", "older ones are intact; no part of one is listed"),
    Row("G2", "no room, or the volume is gone, while a backup is made", "the rotation stops before the activation"),
    Row(
        "G3",
        "backups lie with the keys",
        "refused in one directory; named where they share a volume",
        "not built: refusing one volume for both; it is a warning",
    ),
    Row("G4", "backups are removed by age or number", "the newest stays, and one that alone holds something"),
    Row("G5", "a password that is empty, short, known, or the master key", "refused"),
    Row("G6", "a password in another spelling, with a line end, of 1 MiB", "one password is one; too long is refused"),
    Row("G7", "a backup is altered or cut after it was written", "found by looking at it, and another is made"),
    Row("G8", "a backup during a rotation", "one consistent keyring, with the version that is to come"),
    Row("G9", "too little memory for the password's work", "said before anything is changed; nothing weaker is done"),
    Row("G10", "key material or a password in listings, arguments or logs", "never"),
    Row("G11", "the store says that a backup is written, and it is not", "read and compared before it counts"),
    # --- H: restoring -----------------------------------------------------------------------------
    Row("H1", "a wrong password", "one message, and nothing is written"),
    Row("H2", "a backup cut or changed anywhere, empty, or huge", "refused, before much memory is taken"),
    Row("H3", "a header that asks for absurd work", "refused before any work"),
    Row("H4", "killed at any call of a restore", "the old keyring or the merged one; again, and it is done"),
    Row("H5", "an older backup over a newer keyring", "merged: nothing newer is lost, nothing destroyed comes back"),
    Row("H6", "a restore where nothing is left", "every value that the backup can open opens"),
    Row("H7", "a restore of one key", "the others stay", "not built: a restore takes in every key of the backup"),
    Row("H8", "one version with two materials", "refused as a conflict"),
    Row("H9", "names with paths, line ends or look-alike letters", "refused by the grammar of names"),
    Row("H10", "a restore while the service changes the keyring", "one after the other; neither is overwritten"),
    Row("H11", "no room in the middle", "nothing is changed"),
    Row("H12", "a backup of a newer format", "refused"),
    Row("H13", "a backup made to open under two passwords", "refused"),
    Row("H14", "a restore, and then every value is read", "every one that opened when the backup was made opens"),
    # --- I: destroying ----------------------------------------------------------------------------
    Row("I1", "destroying what is active or staged", "refused"),
    Row("I2", "destroying while one value needs it", "refused, with the place"),
    Row("I3", "a value is written under it while it waits", "cancelled, carried over, and told as an alarm"),
    Row("I4", "a value in quarantine needs it", "refused"),
    Row(
        "I5",
        "dumps of the data still need it",
        "it waits until the last of them is gone",
        "not built: going ahead all the same with two approvals",
    ),
    Row("I6", "cancelled while it waits", "usable as before"),
    Row("I7", "no verified backup holds the keyring", "refused"),
    Row("I8", "older backups still hold what was destroyed", "listed with the day they go; removed when asked for"),
    Row("I9", "what was destroyed is imported again", "refused"),
    Row("I10", "destroyed in haste, because it leaked", "never before its values are under another version"),
    # --- J: the audit log -------------------------------------------------------------------------
    Row("J1", "a line edited, added, removed or moved, anywhere", "the line is named"),
    Row("J2", "the end cut off, the file gone or an older one", "noticed by checkpoints and by the keyring"),
    Row("J3", "killed while a line is written", "the torn line is dropped and recorded, and is no attack"),
    Row("J4", "a line cannot be written", "nothing is changed; values can still be read"),
    Row("J5", "the file is removed or replaced while it is open", "noticed, and nothing is changed"),
    Row("J6", "several write at once", "one log"),
    Row("J7", "the log goes on in a new file", "it stays one log, and is checked as one"),
    Row("J8", "a secret in a field", "none is found, in any spelling"),
    Row("J9", "line ends and control characters in a person's text", "one line stays one line"),
    Row("J10", "the audit key is replaced", "older checkpoints still count, and the former key signs nothing new"),
    Row("J11", "a result is missing after a crash", "written by the next change, and listed until then"),
    # --- K: settings and start-up -----------------------------------------------------------------
    Row("K1", "production with a default master key, in any spelling", "exit 78, before anything is written"),
    Row("K2", "the environment's name is misspelled or missing", "production"),
    Row("K3", "keys that everybody knows or that repeat themselves", "refused"),
    Row("K4", "no master key", "refused; nothing is ever kept in the clear"),
    Row("K5", "a master key by variable and by file", "refused"),
    Row(
        "K6",
        "directories and files that are open to others",
        "refused, with the command that closes them",
        "not built: looking at who owns them, and at the directories above",
    ),
    Row("K7", "settings with tags, anchors, repetitions, wrong types, too large", "refused; no code runs from them"),
    Row(
        "K8",
        "paths or SQL in the settings",
        "names are looked up in the catalogue and quoted",
        "not built: allowing certain directories only; whoever edits the settings chooses the paths",
    ),
    Row("K9", "the settings change during a rotation", "the run keeps those that it began with"),
    Row("K10", "intervals, counts or costs out of bounds", "refused"),
    Row(
        "K11",
        "default passwords and connections in the clear",
        "a default database password is refused, and so is telling alarms over plain HTTP",
        "not built: looking at whether a database's connection is encrypted",
    ),
    Row(
        "K12",
        "started as root, with core dumps, with swap",
        "no core dump is made; image and units run without rights",
        "not built: `doctor` says nothing of root or swap",
    ),
    Row("K13", "this machine computes wrongly", "known answers are computed at the start, and a wrong one refused"),
    # --- L: a server and its users ----------------------------------------------------------------
    Row("L1", "no token, a wrong one, an old one, somebody else's", "refused, and on the record", NO_SERVER),
    Row("L2", "the time that comparing a token takes", "says nothing of it", NO_SERVER),
    Row("L3", "a request that another site makes", "refused", NO_SERVER),
    Row("L4", "frames and scripts of others on a page", "they do not run", NO_SERVER),
    Row("L5", "one click that comes twice", "one rotation", NO_SERVER),
    Row("L6", "the client goes away during a rotation", "the rotation goes on", NO_SERVER),
    Row("L7", "huge, deep or malformed requests", "refused in bounded memory", NO_SERVER),
    Row("L8", "what an error says", "kind and place; nothing of what foreign code put into its message"),
    Row("L9", "passwords are guessed", "slowed down", NO_SERVER),
    Row("L10", "a password among the arguments of a command", "there is no option that takes one"),
    Row("L11", "a connection without TLS", "refused", NO_SERVER),
    Row("L12", "what metrics and health checks tell", "no secret"),
    # --- M: secrets -------------------------------------------------------------------------------
    Row("M1", "every public function fails with a secret in its hands", "no trace of it in error, repr or log"),
    Row("M2", "a core dump, or another process that looks into memory", "none is made; nobody but root may look"),
    Row("M3", "environment, arguments and open files of a process", "nobody but root may read them, or no trace"),
    Row("M4", "a key is printed, copied or pickled", "refused, or shown without its bytes"),
    Row("M5", "the database library logs its statements", "values are not in them"),
    Row(
        "M6",
        "temporary files, image layers, swap",
        "no trace",
        "memory is not locked: what the system writes to swap is for the host to encrypt",
    ),
)
