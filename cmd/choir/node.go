package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"choir.example/node"
	"choir.example/privacy/seal"
)

// nodeCommand is `choir node`.
type nodeCommand struct {
	Run    nodeRun    `cmd:"" default:"withargs" help:"Run an edge node: enrol it with a token, or go on."`
	Status nodeStatus `cmd:"" help:"How the node is doing, and what left this machine."`
	Reseal nodeReseal `cmd:"" help:"Seal the node's keys anew, as unseal in the configuration says."`
}

// nodeRun is `choir node [run]`.
type nodeRun struct {
	contextFlag
	Config string `help:"Configuration, YAML. deploy/local/n1.yaml explains the keys; without it all have their defaults." placeholder:"FILE" type:"path"`
	Join   string `name:"join-file" help:"Enrol with the token in FILE, then run. - reads it from standard input." placeholder:"FILE"`
}

// Help is what --help explains.
func (nodeRun) Help() string {
	return `--join-file is needed once; a node that is enrolled goes on where it was, with or without it. It also tells the context
where the node is, so that choir data, predict and feedback find it. SIGTERM stops it: updates under way are kept and sent
after the next start. SIGHUP reads the configuration again; the log's level takes effect, what does not is named in the log.

Example: choir node --join-file n1.token --config n1.yaml`
}

// nodeFile is a node's configuration.
type nodeFile struct {
	Name        string        `yaml:"name"`
	Dir         string        `yaml:"dir"`
	HTTP        string        `yaml:"http"`
	Certificate string        `yaml:"certificate"`
	Key         string        `yaml:"key"`
	Variant     string        `yaml:"variant"`
	Hours       string        `yaml:"hours"`
	OnlyOnPower bool          `yaml:"only_on_power"`
	Health      string        `yaml:"health"`
	Log         string        `yaml:"log"`
	Level       string        `yaml:"level"`
	Poll        time.Duration `yaml:"poll"`

	Unseal           string `yaml:"unseal"`
	PassphraseFile   string `yaml:"passphrase_file"`
	UnsealCredential string `yaml:"unseal_credential"`
}

func (f nodeFile) unseal() unsealKeys {
	return unsealKeys{f.Unseal, f.PassphraseFile, f.UnsealCredential}
}

// readNode reads a configuration; paths in it lie relative to the file. An empty path is all defaults.
func readNode(path string) (nodeFile, error) {
	d := node.DefaultConfig()
	f := nodeFile{HTTP: "127.0.0.1:8080", Variant: d.Variant, Poll: d.Poll, Log: "text", Level: "info", Unseal: string(seal.UnsealFile)}
	if path != "" {
		if err := readYAML(path, &f); err != nil {
			return f, missing("configuration", err)
		}
		for _, p := range []*string{&f.Dir, &f.Certificate, &f.Key, &f.PassphraseFile} {
			if *p != "" {
				*p = beside(path, *p)
			}
		}
	}
	if f.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return f, fmt.Errorf("the node needs a name, and this machine has none: %w", err)
		}
		f.Name = strings.ToLower(host)
	}
	if f.Dir == "" {
		base, err := os.UserHomeDir()
		if err != nil {
			return f, &hinted{fmt.Errorf("where is the node's directory? %w", err), "give dir in the configuration"}
		}
		f.Dir = filepath.Join(cmp.Or(os.Getenv("XDG_DATA_HOME"), filepath.Join(base, ".local", "share")), "choir", "node")
	}
	return f, inFile(path, f, cmp.Or(logKeys{f.Log, f.Level}.check(), f.unseal().check(), f.config().Validate()))
}

func (f nodeFile) config() node.Config {
	c := node.DefaultConfig()
	c.Name, c.Dir, c.HTTP, c.Certificate, c.Key, c.Variant = f.Name, f.Dir, f.HTTP, f.Certificate, f.Key, f.Variant
	c.Hours, c.OnlyOnPower, c.Health, c.Poll = f.Hours, f.OnlyOnPower, f.Health, f.Poll
	return c
}

// Run runs the node until it is told to stop.
func (c *nodeRun) Run(ctx context.Context, t *terminal) (err error) {
	file, err := readNode(c.Config)
	if err != nil {
		return err
	}
	log, level, err := logKeys{file.Log, file.Level}.start(t.err)
	if err != nil {
		return err
	}
	log = log.With("node", file.Name)
	cfg, deps := file.config(), node.Deps{Log: log, Dial: dialTCP, Now: now, Rand: random, Keys: newKeyring(t, file.unseal()).open}
	if c.Join != "" {
		if err := c.enrol(ctx, cfg, deps); err != nil {
			return startHint(inFile(c.Config, file, err))
		}
	}
	n, err := node.New(cfg, deps)
	if err != nil {
		if strings.Contains(err.Error(), "not enrolled") {
			return &hinted{err, "give it a token once: choir node --join-file TOKEN-FILE --config FILE"}
		}
		return startHint(inFile(c.Config, file, err))
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	reloadOn(ctx, log, level, file, func() (any, error) { return readNode(c.Config) })
	log.Info("node starts", "predictions", n.Address(), "version", version)
	if err := n.Run(ctx); err != nil {
		return err
	}
	log.Info("node has stopped")
	return nil
}

// enrol uses the token, unless the node is enrolled already and the token is gone.
func (c *nodeRun) enrol(ctx context.Context, cfg node.Config, deps node.Deps) error {
	token, err := readToken(c.Join)
	if err != nil {
		if _, gone := os.Stat(filepath.Join(cfg.Dir, "identity")); gone == nil && errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := node.Enrol(ctx, cfg, deps, token); err != nil {
		return tokenError(err)
	}
	return c.remember()
}

// nodeContext is node.yaml in a context: where this machine's node is.
type nodeContext struct {
	Config string `yaml:"config"`
}

// remember tells the context where the node is, if it does not know one.
func (c *nodeRun) remember() error {
	dir, err := c.dir()
	if err != nil || c.Config == "" {
		return err
	}
	path := filepath.Join(dir, "node.yaml")
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return seal.WriteFile(path, fmt.Appendf(nil, "# Where this machine's node is configured. Written by choir node --join-file.\nconfig: %q\n", c.Config))
}

// nodeFlag finds the node of this machine.
type nodeFlag struct {
	contextFlag
	Config string `help:"The node's configuration. Default: that of the node that the context knows." placeholder:"FILE" env:"CHOIR_NODE"`
}

// file is the node's configuration.
func (n nodeFlag) file() (nodeFile, error) {
	if n.Config != "" {
		return readNode(n.Config)
	}
	dir, err := n.dir()
	if err != nil {
		return nodeFile{}, err
	}
	var known nodeContext
	path := filepath.Join(dir, "node.yaml")
	if err := readYAML(path, &known); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nodeFile{}, err
	}
	f, err := readNode(known.Config)
	if err != nil && known.Config != "" {
		return f, &hinted{err, path + " names this file; name another with --config"}
	}
	return f, err
}
