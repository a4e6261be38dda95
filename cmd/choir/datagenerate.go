package main

import (
	"fmt"

	"choir.example/model/data"
)

// dataGenerate is `choir data generate`.
type dataGenerate struct {
	outputFlag
	What     string `arg:"" help:"What to make up: ${enum}." enum:"shop"`
	Seed     uint64 `help:"Of all that is chance: the same numbers give the same data. Shops of several seeds can stand for several nodes." default:"1"`
	Users    int    `help:"How many users." default:"500"`
	Items    int    `help:"How many items." default:"200"`
	Sessions int    `help:"How many sessions: the rows to learn from." default:"4000"`
	To       string `help:"Directory for the files; it must hold none of them yet. Default: what is made up, here." placeholder:"DIR" type:"path" aliases:"out"`
}

// Help is what --help explains.
func (dataGenerate) Help() string {
	return `Makes data up that models can learn from, to try things out: sessions.csv, purchases.csv, users.csv, items.csv and the
schema of the sessions, shop.yaml. The formula stands in the package model/data, type Shop.

Example: choir data generate shop --seed 7 --to shop7`
}

// Run writes the files.
func (c *dataGenerate) Run(t *terminal) error {
	shop, err := data.GenerateShop(c.Seed, c.Users, c.Items, c.Sessions)
	if err != nil {
		return &usageError{err.Error(), ""}
	}
	dir := firstOf(c.To, c.What)
	m := newMeter(t.err, "generate "+c.What)
	paths, err := shop.Write(dir, func(done, all int64) { m.count(done, all, "sessions") })
	m.finish()
	if err != nil {
		return &hinted{err, "name another directory with --to"}
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"files": paths})
	}
	for _, p := range paths {
		if _, err := fmt.Fprintln(t.out, p); err != nil {
			return err
		}
	}
	return nil
}
