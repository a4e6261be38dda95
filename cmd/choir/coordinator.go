package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"choir.example/coordinator"
	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
)

// coordinatorCommand is `choir coordinator`.
type coordinatorCommand struct {
	Run    coordinatorRun    `cmd:"" default:"withargs" help:"Run a replica: found a federation, join one, or go on."`
	Reseal coordinatorReseal `cmd:"" help:"Seal the coordinator's keys anew, as unseal in the configuration says."`
}

// coordinatorRun is `choir coordinator [run]`.
type coordinatorRun struct {
	contextFlag
	rootFlags
	Config    string   `help:"Configuration, YAML. deploy/local/c1.yaml explains the keys." required:"" placeholder:"FILE" type:"path"`
	Bootstrap bool     `help:"Found a federation: make its root key file and the first operator's credential, then run." xor:"how"`
	Join      string   `help:"Join a federation: post a request with the token in FILE, wait until an operator approves it, then run. - reads the token from standard input. The token itself is taken, too, but then others on this machine can read it from the process list." placeholder:"FILE" xor:"how"`
	Officers  []string `name:"officer-request" help:"With --bootstrap: a request that an officer made with choir credential request. It is certified, beside it, and its key is pinned in the first record. May be given again." placeholder:"FILE" type:"path"`
	Operator  string   `help:"Name of the first operator. Default: your user name." placeholder:"NAME"`
}

// Help is what --help explains.
func (coordinatorRun) Help() string {
	return `--bootstrap and --join furnish the directory once; later the coordinator is started with --config alone. --join may be
given again: one that has joined goes on where it was. SIGTERM stops it: leadership is handed on. SIGHUP reads the
configuration again; the log's level takes effect, what does not is named in the log.

Example: choir coordinator --bootstrap --config c1.yaml --root-key root.key`
}

// coordinatorFile is a coordinator's configuration.
type coordinatorFile struct {
	Name         string        `yaml:"name"`
	Cluster      string        `yaml:"cluster"`
	Address      string        `yaml:"address"`
	Listen       string        `yaml:"listen"`
	Dir          string        `yaml:"dir"`
	Health       string        `yaml:"health"`
	Log          string        `yaml:"log"`
	Level        string        `yaml:"level"`
	Heartbeat    time.Duration `yaml:"heartbeat"`
	BatchUpdates int           `yaml:"batch_updates"`
	BatchDelay   time.Duration `yaml:"batch_delay"`
	Uploads      int           `yaml:"uploads"`
	MaxUpdate    int64         `yaml:"max_update"`
	EpochLife    time.Duration `yaml:"epoch_life"`

	Unseal           string `yaml:"unseal"`
	PassphraseFile   string `yaml:"passphrase_file"`
	UnsealCredential string `yaml:"unseal_credential"`
}

func (f coordinatorFile) unseal() unsealKeys {
	return unsealKeys{f.Unseal, f.PassphraseFile, f.UnsealCredential}
}

// readCoordinator reads a configuration. Its dir lies relative to the file.
func readCoordinator(path string) (coordinatorFile, error) {
	d := coordinator.DefaultConfig()
	f := coordinatorFile{
		Log: "text", Level: "info", Heartbeat: d.Heartbeat, BatchUpdates: d.BatchUpdates, BatchDelay: d.BatchDelay,
		Uploads: d.Uploads, MaxUpdate: d.MaxUpdate, EpochLife: d.EpochLife, Unseal: string(seal.UnsealFile),
	}
	if err := readYAML(path, &f); err != nil {
		return f, missing("configuration", err)
	}
	for _, k := range []struct{ key, value string }{{"name", f.Name}, {"dir", f.Dir}, {"address", f.Address}} {
		if k.value == "" {
			return f, &hinted{fmt.Errorf("%s: %s is missing", path, k.key), "deploy/local/c1.yaml is a commented example"}
		}
	}
	f.Dir = beside(path, f.Dir)
	if f.PassphraseFile != "" {
		f.PassphraseFile = beside(path, f.PassphraseFile)
	}
	c := f.config()
	c.Cluster, c.Voters = cmp.Or(c.Cluster, "unknown"), []coordinator.Voter{{Name: c.Name}} // the rest is in the directory
	return f, inFile(path, f, cmp.Or(logKeys{f.Log, f.Level}.check(), f.unseal().check(), c.Validate()))
}

func (f coordinatorFile) config() coordinator.Config {
	c := coordinator.DefaultConfig()
	c.Name, c.Cluster, c.Address, c.Listen, c.Dir = f.Name, f.Cluster, f.Address, f.Listen, f.Dir
	c.Heartbeat, c.BatchUpdates, c.BatchDelay, c.Uploads, c.MaxUpdate = f.Heartbeat, f.BatchUpdates, f.BatchDelay, f.Uploads, f.MaxUpdate
	c.Health, c.EpochLife = f.Health, f.EpochLife
	return c
}

// Run runs the coordinator until it is told to stop.
func (c *coordinatorRun) Run(ctx context.Context, t *terminal) error {
	if len(c.Officers) > 0 && !c.Bootstrap {
		return &usageError{"--officer-request goes with --bootstrap", "an officer is admitted later with choir credential create officer --request FILE"}
	}
	file, err := readCoordinator(c.Config)
	if err != nil {
		return err
	}
	log, level, err := logKeys{file.Log, file.Level}.start(t.err)
	if err != nil {
		return err
	}
	log = log.With("coordinator", file.Name)
	cfg, deps := file.config(), coordinator.Deps{Log: log, Dial: dialTCP, Now: now, Rand: random, Keys: newKeyring(t, file.unseal()).open}
	if !coordinator.Furnished(cfg.Dir) && (c.Bootstrap || c.Join != "") {
		// Before anything is made or sent that names the address for good.
		if deps.Listener, err = net.Listen("tcp", cmp.Or(cfg.Listen, cfg.Address)); err != nil {
			return c.explain(file, err)
		}
		defer deps.Listener.Close() // Run has closed it, unless something failed before
	}
	switch {
	case c.Bootstrap:
		err = c.bootstrap(t, cfg, deps)
		debug.FreeOSMemory() // the passphrase's scrypt took 256 MiB, which this process would keep
	case c.Join != "":
		err = c.join(ctx, cfg, deps)
	}
	if err != nil {
		return c.explain(file, err)
	}
	replica, err := coordinator.New(cfg, deps)
	if err != nil {
		return c.explain(file, err)
	}
	reloadOn(ctx, log, level, file, func() (any, error) { return readCoordinator(c.Config) })
	log.Info("coordinator starts", "address", file.Address, "version", version)
	if err := replica.Run(ctx); err != nil {
		return c.explain(file, err)
	}
	log.Info("coordinator has stopped")
	return nil
}

// explain adds file, line and cure to an error.
func (c *coordinatorRun) explain(file coordinatorFile, err error) error {
	if errors.Is(err, coordinator.ErrNoIdentity) {
		return &hinted{err, "the first start is choir coordinator --bootstrap or --join TOKEN-FILE"}
	}
	if errors.Is(err, state.ErrNewer) {
		return &hinted{err, "install the version that the other coordinators run, and start again; nothing is lost"}
	}
	return startHint(inFile(c.Config, file, err))
}

// join posts the request and waits. One that has joined before needs no token.
func (c *coordinatorRun) join(ctx context.Context, cfg coordinator.Config, deps coordinator.Deps) error {
	if coordinator.Furnished(cfg.Dir) {
		return nil
	}
	token, err := readToken(c.Join)
	if err != nil {
		return err
	}
	if err := token.Check(now()); err != nil {
		return tokenError(err)
	}
	if err := coordinator.Join(ctx, cfg, deps, token); err != nil {
		return tokenError(err)
	}
	deps.Log.Info("this coordinator has joined")
	return nil
}

// bootstrap makes the root key, the first operator's context, and the coordinator's directory, in this order, so that a
// crash between leaves nothing that the same command does not complete.
func (c *coordinatorRun) bootstrap(t *terminal, cfg coordinator.Config, deps coordinator.Deps) error {
	if coordinator.Furnished(cfg.Dir) {
		return &hinted{fmt.Errorf("%s is a coordinator's directory already: its federation exists", cfg.Dir), "start it without --bootstrap: choir coordinator --config " + c.Config}
	}
	if cfg.Cluster == "" {
		return &hinted{fmt.Errorf("%s: cluster is missing", c.Config), "give the federation a name, such as cluster: shop"}
	}
	dir, err := c.contextFlag.dir()
	if err != nil {
		return err
	}
	root, err := c.root(t, cfg, dir)
	if err != nil {
		return err
	}
	if cfg.Officers, err = c.officers(t, root); err != nil {
		return err
	}
	if err := coordinator.Found(cfg, deps, root); err != nil {
		return err
	}
	fmt.Fprintf(t.err, "federation %s is founded\n  root key     %s (keep it off this machine; it certifies coordinators and people)\n  fingerprint  %s\n  context      %s\n",
		cfg.Cluster, c.RootKey, root.Fingerprint(), dir)
	return nil
}

// officers certifies the officers' requests and returns the fingerprints of their keys.
func (c *coordinatorRun) officers(t *terminal, root *seal.Root) (prints [][]byte, err error) {
	for _, path := range c.Officers {
		name, key, err := readRequest(path)
		if err != nil {
			return nil, err
		}
		chain, err := root.Certify(seal.RoleOfficer, name, key, now(), personLife)
		if err != nil {
			return nil, err
		}
		out := strings.TrimSuffix(path, filepath.Ext(path)) + ".crt"
		if err := writePEM(out, "CERTIFICATE", chain...); err != nil {
			return nil, err
		}
		print := seal.KeyFingerprint(key)
		fmt.Fprintf(t.err, "officer %s: certificate %s; fingerprint of the key, which is pinned: %x\n", name, out, print)
		prints = append(prints, print[:])
	}
	slices.SortFunc(prints, bytes.Compare)
	return slices.CompactFunc(prints, bytes.Equal), nil
}

// root makes the root key and the context, or opens those that an interrupted bootstrap left.
func (c *coordinatorRun) root(t *terminal, cfg coordinator.Config, dir string) (*seal.Root, error) {
	_, noRoot := os.Lstat(c.RootKey)
	old, noContext := openContext(dir)
	_, noFile := os.Lstat(filepath.Join(dir, "context.yaml"))
	switch {
	case noFile == nil && noContext != nil:
		return nil, noContext
	case noContext == nil && (old.Cluster != cfg.Cluster || !slices.Equal(old.Addresses, []string{cfg.Address}) || noRoot != nil):
		return nil, &hinted{fmt.Errorf("%s is the context of federation %s already", dir, old.Cluster), "name another directory with --context; to add a coordinator to that federation, use --join"}
	case noContext == nil:
		return c.openRoot(t, old)
	case noRoot == nil:
		return nil, &hinted{fmt.Errorf("%s exists already: it is the root key of a federation", c.RootKey), "name another file with --root-key; to add a coordinator to that federation, use --join"}
	}
	pass, err := c.passphrase(t, true)
	if err != nil {
		return nil, err
	}
	at := now()
	root, err := seal.NewRoot(cfg.Cluster, at, random)
	if err != nil {
		return nil, err
	}
	if err := seal.WriteRootKey(c.RootKey, root, pass, t.work); err != nil {
		return nil, err
	}
	return root, c.firstOperator(dir, cfg, root, at)
}

// firstOperator writes the context.
func (c *coordinatorRun) firstOperator(dir string, cfg coordinator.Config, root *seal.Root, at time.Time) error {
	key, err := seal.NewKey(random)
	if err != nil {
		return err
	}
	chain, err := root.Certify(seal.RoleOperator, c.operator(), key.Public().(ed25519.PublicKey), at, personLife)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := saveCredential(dir, seal.RoleOperator, &seal.Credential{Chain: chain, Key: key}); err != nil {
		return err
	}
	return saveContext(dir, contextFile{Cluster: cfg.Cluster, Root: root.Fingerprint(), Addresses: []string{cfg.Address}}, seal.LineageFrom(root.Certificate()))
}

// operator is the first operator's name: what may stand in a certificate of the user's name.
func (c *coordinatorRun) operator() string {
	if c.Operator != "" {
		return c.Operator
	}
	if u, err := user.Current(); err == nil {
		name := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, u.Username)
		if name != "" {
			return name
		}
	}
	return "operator"
}
