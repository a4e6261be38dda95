package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"choir.example/privacy/seal"
)

// dataBackup is `choir data backup`.
type dataBackup struct {
	nodeFlag
	outputFlag
	File       string   `arg:"" help:"The backup to write." type:"path"`
	Recipient  []string `help:"Who can open it: an age recipient, age1…; may be given several times." placeholder:"AGE1" xor:"lock"`
	Passphrase string   `name:"passphrase-file" help:"File of mode 0600 whose first line is the backup's passphrase; - is standard input. Without it, and without --recipient, you are asked." placeholder:"FILE" xor:"lock"`
	Force      bool     `help:"Write over a file that exists."`
}

// Help is what --help explains.
func (dataBackup) Help() string {
	return `The file holds schema, rows and feedback, encrypted with age; the node's key and certificate are not in it. Works while the
node runs.

Example: choir data backup --recipient age1qz… n1.backup`
}

// Run writes a backup: under another name until it is whole.
func (c *dataBackup) Run(ctx context.Context, t *terminal) (err error) {
	if _, err := os.Lstat(c.File); err == nil && !c.Force {
		return &hinted{fmt.Errorf("%s exists already", c.File), "add --force to write over it, or name another file"}
	}
	lock := seal.Lock{Recipients: c.Recipient, Work: t.work}
	if len(c.Recipient) == 0 {
		if lock.Passphrase, err = backupPassphrase(t, c.Passphrase, true); err != nil {
			return err
		}
	}
	h, done, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	f, err := os.CreateTemp(filepath.Dir(c.File), ".backup-*") // mode 0600
	if err != nil {
		return &hinted{fmt.Errorf("write backup: %w", err), "name a file in a directory that you may write to"}
	}
	defer os.Remove(f.Name()) // nothing to remove once it is renamed
	shown := newMeter(t.err, "writing "+filepath.Base(c.File))
	out := &countedWriter{w: f, shown: shown}
	err = h.Backup(ctx, out, lock)
	shown.finish()
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return backupHint(err)
	}
	if err := os.Rename(f.Name(), c.File); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return c.tell(t, t.out, map[string]any{"file": c.File, "bytes": out.n}, "%s: %s", c.File, bytesOf(out.n))
}

func backupPassphrase(t *terminal, file string, fresh bool) (string, error) {
	if file != "" {
		return readLine("passphrase file", file)
	}
	return askPassphrase(t, "passphrase of the backup", fresh)
}

// countedWriter tells a meter how much was written.
type countedWriter struct {
	w     io.Writer
	shown *meter
	n     uint64
}

func (c *countedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += uint64(n)
	c.shown.bytes(c.n, 0)
	return n, err
}

// dataRestore is `choir data restore`.
type dataRestore struct {
	nodeFlag
	outputFlag
	File       string `arg:"" help:"The backup." type:"path"`
	Identity   string `help:"age identity file that opens it, mode 0600." placeholder:"FILE" xor:"unlock"`
	Passphrase string `name:"passphrase-file" help:"File of mode 0600 whose first line is the backup's passphrase; - is standard input. Without it, and without --identity, you are asked." placeholder:"FILE" xor:"unlock"`
}

// Help is what --help explains.
func (dataRestore) Help() string {
	return `Into a store without rows: everything, or nothing if the backup is damaged or for somebody else.

Example: choir data restore --identity key.txt n1.backup`
}

// Run reads a backup.
func (c *dataRestore) Run(ctx context.Context, t *terminal) (err error) {
	file, size, err := openData(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := checkBackup(c.File, file); err != nil {
		return err
	}
	var unlock seal.Unlock
	if c.Identity != "" {
		b, err := readSecret("identity file", c.Identity)
		if err != nil {
			return err
		}
		unlock.Identities = string(b)
	} else if unlock.Passphrase, err = backupPassphrase(t, c.Passphrase, false); err != nil {
		return err
	}
	h, done, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	shown := newMeter(t.err, "restoring "+filepath.Base(c.File))
	all, err := h.Restore(ctx, &watchedFile{file: file, shown: shown, size: uint64(size)}, unlock, size)
	shown.finish()
	if err != nil {
		return backupHint(err)
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"imports": all})
	}
	return printImports(t.out, all)
}

// checkBackup sees that a file begins as backups do, before anything is asked of the node.
func checkBackup(path string, file *os.File) error {
	const begin = "age-encryption.org/v1\n"
	b := make([]byte, len(begin))
	if n, err := file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read backup: %w", err)
	} else if string(b[:n]) != begin {
		return &hinted{fmt.Errorf("%s is no backup: it is not encrypted with age", path), "choir data backup writes one"}
	}
	return nil
}

// backupHint adds the cure to an error about a backup.
func backupHint(err error) error {
	for sign, hint := range map[string]string{
		"it holds rows":             "delete the imports first, or restore into the directory of a new node; choir data list shows what is there",
		"another key or passphrase": "name the right one with --identity or --passphrase-file",
		"damaged or cut":            "take another copy of the backup; choir data backup writes a new one where the rows are",
		"not a backup of a store":   "choir data backup writes one",
		"no schema yet":             "there is nothing to back up; choir data import brings rows",
		"recipient":                 "a recipient begins with age1; age-keygen makes a pair of recipient and identity",
		"identit":                   "an identity file has a line that begins with AGE-SECRET-KEY-1; age-keygen makes one",
	} {
		if strings.Contains(err.Error(), sign) {
			return &hinted{err, hint}
		}
	}
	return err
}
