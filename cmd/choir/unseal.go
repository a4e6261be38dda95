package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"choir.example/privacy/seal"
)

// unsealKeys are the keys of a daemon's file that say what opens its directory.
type unsealKeys struct {
	Unseal           string
	PassphraseFile   string
	UnsealCredential string
}

// defaultCredential is how the units in deploy/systemd call the identity.
const defaultCredential = "choir-unseal"

// check names the first key that is wrong, as rooms name the fields of their configurations.
func (k unsealKeys) check() error {
	switch mode := seal.UnsealMode(k.Unseal); {
	case mode != seal.UnsealFile && mode != seal.UnsealCredential && mode != seal.UnsealPassphrase:
		return fmt.Errorf("coordinator config: Unseal is %q, want file, systemd-credential or passphrase", k.Unseal)
	case k.PassphraseFile != "" && mode != seal.UnsealPassphrase:
		return fmt.Errorf("coordinator config: PassphraseFile is given, but unseal is %s; want unseal: passphrase with it", mode)
	case k.UnsealCredential != "" && mode != seal.UnsealCredential:
		return fmt.Errorf("coordinator config: UnsealCredential is given, but unseal is %s; want unseal: systemd-credential with it", mode)
	case k.UnsealCredential != filepath.Base(k.UnsealCredential) && k.UnsealCredential != "":
		return fmt.Errorf("coordinator config: UnsealCredential is %q, want the name of a credential, without a path", k.UnsealCredential)
	}
	return nil
}

// way gets the secret that the keys name. fresh is true for a passphrase that nothing is sealed under yet.
func (k unsealKeys) way(t *terminal, dir string, fresh bool) (u seal.Unseal, err error) {
	u.Work = t.work
	switch u.Mode = seal.UnsealMode(k.Unseal); u.Mode {
	case seal.UnsealCredential:
		u.Secret, err = readCredential(cmp.Or(k.UnsealCredential, defaultCredential))
	case seal.UnsealPassphrase:
		u.Secret, err = unsealPassphrase(t, dir, k.PassphraseFile, fresh)
	}
	return u, err
}

// readCredential reads what systemd hands to a unit. Its mode is not looked at: systemd gives the unit's user access by an
// access control list, which looks like a group's.
func readCredential(name string) (string, error) {
	const cure = "the unit wants LoadCredential or LoadCredentialEncrypted for it (deploy/systemd shows the line); outside a unit, set CREDENTIALS_DIRECTORY to a directory that holds it"
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", &hinted{fmt.Errorf("credential %s is missing: CREDENTIALS_DIRECTORY is not set", name), cure}
	}
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", &hinted{fmt.Errorf("credential %s is missing: %w", name, err), cure}
	}
	if err != nil {
		return "", &hinted{fmt.Errorf("read credential %s: %w", name, err), secretHint(err, filepath.Join(dir, name))}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", fmt.Errorf("read credential %s: %w", name, err)
	}
	return string(b), nil
}

// unsealPassphrase reads or asks for a passphrase, and says why the next moment takes longer.
func unsealPassphrase(t *terminal, dir, file string, fresh bool) (pass string, err error) {
	if file != "" {
		pass, err = readLine("passphrase file", file)
	} else {
		pass, err = askPassphrase(t, "passphrase of "+dir, fresh)
	}
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return "", &usageError{usage.text, "name a file of mode 0600 in the configuration, such as passphrase_file: /run/choir/passphrase"}
	}
	return pass, err
}

// keyring opens the data key of a daemon's directory once, however many parts of the program ask for it.
type keyring struct {
	t    *terminal
	keys unsealKeys
	say  func(text string) // that it will take a moment
	dir  string
	box  *seal.Box
}

func newKeyring(t *terminal, keys unsealKeys) *keyring {
	return &keyring{t: t, keys: keys, say: func(text string) { fmt.Fprintln(t.err, text) }}
}

// open is what rooms call with the directory of the keys.
func (k *keyring) open(dir string) (*seal.Box, error) {
	if k.box != nil && k.dir == dir {
		return k.box, nil
	}
	sealedBy, err := seal.UnsealedBy(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return nil, err
	}
	mode := seal.UnsealMode(k.keys.Unseal)
	if !fresh && (sealedBy == seal.UnsealPassphrase) != (mode == seal.UnsealPassphrase) { // before anybody is asked for a secret
		return nil, resealHint(fmt.Errorf("open keys in %s: they are sealed by %s, and the configuration says %s: %w", dir, sealedBy, mode, seal.ErrUnseal))
	}
	way, err := k.keys.way(k.t, dir, fresh)
	if err != nil {
		return nil, err
	}
	if mode == seal.UnsealPassphrase {
		k.say("opening the keys with the passphrase, which takes a moment and 128 MiB")
		defer debug.FreeOSMemory() // this process would keep what scrypt took
	}
	box, err := way.Open(dir, random)
	if err != nil {
		return nil, resealHint(err)
	}
	k.dir, k.box = dir, box
	return box, nil
}

// resealHint adds the cure to an error about what opens a directory.
func resealHint(err error) error {
	switch {
	case errors.Is(err, seal.ErrUnseal):
		return &hinted{err, "set unseal in the configuration to what it was, or seal the keys anew as the configuration says: choir node reseal, choir coordinator reseal"}
	case errors.Is(err, seal.ErrPassphrase):
		return &hinted{err, "give the passphrase that the keys were sealed under; there is no other way in, a node's data come back from a backup"}
	}
	return err
}

// resealFlags say how a directory was sealed before, where the directory itself does not.
type resealFlags struct {
	outputFlag
	OldPassphrase string `name:"old-passphrase-file" help:"File of mode 0600 whose first line is the passphrase until now; - is standard input. Without it you are asked, if there is one." placeholder:"FILE"`
	OldIdentity   string `name:"old-identity" help:"File of mode 0600 with the age identity until now, if it was a credential. Without it the credential is looked for as the configuration says." placeholder:"FILE"`
}

const resealHelp = `Seals the directory's data key anew, in the way that unseal in the configuration says: change that key first. How it is
sealed until now the directory tells. Nothing else is written, and the data key stays the same: the daemon may run
meanwhile and asks for the new way at its next start. The old files are overwritten where they lay; copies of them that
exist elsewhere still open the directory, so a secret that got into wrong hands wants a new directory instead.

`

// reseal is what `choir coordinator reseal` and `choir node reseal` share.
func (r *resealFlags) reseal(t *terminal, dir string, keys unsealKeys) error {
	dir = filepath.Join(dir, "keys")
	by, err := seal.UnsealedBy(dir)
	if err != nil {
		return &hinted{err, "is this the right configuration? The directory is made at the daemon's first start"}
	}
	from, err := r.old(t, dir, by, keys)
	if err != nil {
		return err
	}
	to, err := keys.way(t, dir, true)
	if err != nil {
		return err
	}
	if from.Mode == seal.UnsealPassphrase || to.Mode == seal.UnsealPassphrase {
		fmt.Fprintln(t.err, "a passphrase takes a moment and 128 MiB")
	}
	if err := seal.Reseal(dir, from, to); err != nil {
		return resealHint(err)
	}
	return r.tell(t, t.out, map[string]any{"path": dir, "unseal": to.Mode, "before": from.Mode}, "the keys in %s are sealed by %s now; before by %s", dir, to.Mode, from.Mode)
}

// old is the way that opens the directory until now.
func (r *resealFlags) old(t *terminal, dir string, by seal.UnsealMode, keys unsealKeys) (u seal.Unseal, err error) {
	switch u.Mode = by; {
	case by == seal.UnsealPassphrase:
		u.Secret, err = unsealPassphrase(t, dir+" until now", r.OldPassphrase, false)
	case r.OldIdentity != "":
		var b []byte
		u.Mode = seal.UnsealCredential
		b, err = readSecret("identity", r.OldIdentity)
		u.Secret = string(b)
	case by == seal.UnsealCredential:
		if u.Secret, err = readCredential(cmp.Or(keys.UnsealCredential, defaultCredential)); err != nil {
			err = &hinted{err, "name the file with the identity until now: --old-identity FILE"}
		}
	}
	return u, err
}

// nodeReseal is `choir node reseal`.
type nodeReseal struct {
	nodeFlag
	resealFlags
}

// Help is what --help explains.
func (nodeReseal) Help() string { return resealHelp + "Example: choir node reseal --config n1.yaml" }

// Run seals a node's keys anew.
func (c *nodeReseal) Run(_ context.Context, t *terminal) error {
	file, err := c.file()
	if err != nil {
		return err
	}
	return c.reseal(t, file.Dir, file.unseal())
}

// coordinatorReseal is `choir coordinator reseal`.
type coordinatorReseal struct {
	resealFlags
	Config string `help:"The coordinator's configuration." required:"" placeholder:"FILE" type:"path"`
}

// Help is what --help explains.
func (coordinatorReseal) Help() string {
	return resealHelp + "Example: choir coordinator reseal --config c1.yaml"
}

// Run seals a coordinator's keys anew.
func (c *coordinatorReseal) Run(_ context.Context, t *terminal) error {
	file, err := readCoordinator(c.Config)
	if err != nil {
		return err
	}
	return c.reseal(t, file.Dir, file.unseal())
}
