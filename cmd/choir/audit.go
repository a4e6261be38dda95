package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"choir.example/privacy/audit"
)

// auditCommand is `choir audit`.
type auditCommand struct {
	Rounds auditRounds   `cmd:"" help:"List the rounds in the audit log."`
	Show   auditShow     `cmd:"" help:"Show the records of a round."`
	Export auditExport   `cmd:"" help:"Write the audit log to a bundle."`
	Verify verifyCommand `cmd:"" help:"Check a bundle offline, trusting nothing but the root's fingerprint."`
}

// verifyCommand is `choir audit verify`.
type verifyCommand struct {
	Bundle string `arg:"" help:"The bundle file." type:"path"`
	Root   string `help:"Fingerprint of the federation's root: 64 hex digits. Without it the bundle can only be found to agree with itself." placeholder:"FINGERPRINT"`
	Output string `short:"o" help:"What to print on standard output: ${enum}." enum:"table,json" default:"table"`
}

// Help is what `choir audit verify --help` explains.
func (verifyCommand) Help() string {
	return `Checks certificates up to the root, the Merkle tree, the signatures of a majority of the coordinators, and that the
counts of each closed round follow from its accepted batches. Certificates must be valid now. Exits 0 only if all holds
under the given root. It does not recompute sums or models: they are not in a bundle.

Example: choir audit verify run.bundle --root $(cat root.fingerprint)`
}

// Run verifies the bundle.
func (c *verifyCommand) Run(t *terminal) error {
	root := strings.ToLower(strings.TrimSpace(c.Root))
	if b, err := hex.DecodeString(root); err != nil || len(b) != 32 && c.Root != "" {
		return &usageError{fmt.Sprintf("--root is %q, want a fingerprint of 64 hex digits", c.Root), "it stands in context.yaml as root, and choir audit export prints it"}
	}
	r, err := c.verify(root)
	if err != nil {
		return &hinted{fmt.Errorf("read bundle: %w", err), "choir audit export FILE writes one"}
	}
	if c.Output == "json" {
		err = c.json(t, r)
	} else {
		err = c.table(t, r)
	}
	switch {
	case err != nil || r.OK:
		return err
	case r.Self:
		return &hinted{fmt.Errorf("self-consistent only: the bundle agrees with itself, but whose it is was not checked"), "give the root's fingerprint with --root"}
	}
	return &hinted{fmt.Errorf("%s does not verify: %s", c.Bundle, failures(r)), "do not rely on this bundle; export it anew, and compare the root's fingerprint with one you got by another way"}
}

func (c *verifyCommand) verify(root string) (audit.Report, error) {
	file, err := os.Open(c.Bundle)
	if err != nil {
		return audit.Report{}, err
	}
	defer file.Close()
	return audit.VerifyFile(file, root, now())
}

// failures names the checks that failed.
func failures(r audit.Report) string {
	var names []string
	for _, c := range r.Checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (c *verifyCommand) table(t *terminal, r audit.Report) error {
	for _, check := range r.Checks {
		word := "ok"
		if !check.OK {
			word = "FAILED"
		}
		fmt.Fprintf(t.out, "%-7s %s: %s\n", word, check.Name, check.Detail)
	}
	for _, key := range r.Officers {
		fmt.Fprintf(t.out, "officer's key %s\n", key)
	}
	_, err := fmt.Fprintf(t.out, "%d records, %d closed rounds\n", r.Records, r.Rounds)
	return err
}

func (c *verifyCommand) json(t *terminal, r audit.Report) error {
	type check struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
	}
	checks := []check{}
	for _, x := range r.Checks {
		checks = append(checks, check(x))
	}
	roots, officers := append([]audit.RootReport{}, r.Roots...), append([]string{}, r.Officers...)
	return json.NewEncoder(t.out).Encode(map[string]any{
		"ok": r.OK, "self_consistent_only": r.Self, "cluster": r.Cluster, "records": r.Records, "rounds": r.Rounds, "checks": checks,
		"roots": roots, "officers": officers,
	})
}
