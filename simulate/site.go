package simulate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"choir.example/internal/lockdir"
)

// site is where a run of fidelity system keeps its coordinators and nodes, and what else it wants to find again after a break.
type site struct {
	dir   string // of the federation
	lab   string // of what nodes compute and send; empty: the run ends with its process
	of    string // which run it is; empty likewise
	again bool   // the federation was founded before
	close func() error
}

// The parts of RunConfig.Dir.
const (
	siteDir  = "federation"
	labDir   = "lab"
	siteLock = ".lock"
)

// Founded reports whether RunConfig.Dir has coordinators and nodes that a run goes on with, if it is the run that they are of.
func Founded(dir string) bool { return chartered(filepath.Join(dir, siteDir)) }

// openSite opens the directory of the run, or a temporary one.
func (t *trial) openSite() (*site, error) {
	if t.cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "choir-simulate-")
		if err != nil {
			return nil, fmt.Errorf("make a directory for coordinators and nodes: %w", err)
		}
		return &site{dir: dir, close: func() error { return os.RemoveAll(dir) }}, nil
	}
	identity, err := t.identity()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(t.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for coordinators and nodes: %w", err)
	}
	unlock, err := lockdir.Lock(filepath.Join(t.cfg.Dir, siteLock))
	if err != nil {
		return nil, fmt.Errorf("run in %s: %w", t.cfg.Dir, err)
	}
	s := &site{
		dir: filepath.Join(t.cfg.Dir, siteDir), lab: filepath.Join(t.cfg.Dir, labDir), of: identity, again: Founded(t.cfg.Dir),
		close: func() error { unlock(); return nil },
	}
	if err := s.prepare(t.cfg.Dir); err != nil {
		unlock()
		return nil, err
	}
	if t.cfg.Start != nil && !s.again {
		unlock()
		return nil, fmt.Errorf("%s has no coordinators and nodes to go on with", t.cfg.Dir)
	}
	return s, nil
}

// prepare refuses a directory of something else, and clears away what a run left that was not founded.
func (s *site) prepare(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("run in %s: %w", dir, err)
	}
	foreign := func(e fs.DirEntry) bool { return !slices.Contains([]string{siteDir, labDir, siteLock}, e.Name()) }
	if i := slices.IndexFunc(entries, foreign); i >= 0 {
		return fmt.Errorf("run in %s: it has %s, which is not of coordinators and nodes; want a directory that is empty or does not exist", dir, entries[i].Name())
	}
	if !s.again {
		err = os.RemoveAll(s.lab)
	}
	return errors.Join(err, os.MkdirAll(s.lab, 0o700))
}
