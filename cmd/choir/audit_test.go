package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

// foundation is the bundle of a federation with one coordinator and nothing but its genesis, and the root's fingerprint.
func foundation(t *testing.T) (bundle []byte, fingerprint string) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	root, err := seal.NewRoot("shop", now, rand.Reader)
	must(err)
	key, err := seal.NewKey(rand.Reader)
	must(err)
	chain, err := root.Certify(seal.RoleCoordinator, "c1", key.Public().(ed25519.PublicKey), now, time.Hour)
	must(err)
	genesis := audit.Encode(&audit.Genesis{Cluster: "shop", Root: root.Certificate().Raw, TimeMS: now.UnixMilli(),
		Coordinators: []audit.Coordinator{{Name: "c1", Address: "127.0.0.1:1", Chain: chain}}})
	head := audit.Head{Cluster: "shop", Size: 1, Root: audit.NewLog([][]byte{genesis}).Root()}
	head.Signatures = []audit.Signature{{Signer: "c1", Signature: seal.Sign(key, audit.DomainHead, head.Message())}}
	b := audit.Bundle{Root: root.Certificate().Raw, Chains: []audit.Chain{{Name: "c1", Certificates: chain}}, Records: [][]byte{genesis}, Head: head}
	return b.Encode(), root.Fingerprint()
}

func TestAuditVerify(t *testing.T) {
	dir := t.TempDir()
	bundle, root := foundation(t)
	_, other := foundation(t)
	damaged := bytes.Clone(bundle)
	damaged[len(damaged)/2] ^= 1
	files := map[string][]byte{"run.bundle": bundle, "damaged.bundle": damaged, "cut.bundle": bundle[:100], "empty": nil, "notes.txt": []byte("all is well\n")}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, args string // FILE is in the directory
		code       int
		out, errs  []string
	}{
		{"the right root", "run.bundle --root " + root, exitOK, []string{
			"ok      format:", "ok      root: " + root, "ok      tree:", "ok      history:", "ok      signatures: 1 of 1 coordinators", "1 records, 0 closed rounds"}, nil},
		{"the right root in capitals", "run.bundle --root " + strings.ToUpper(root), exitOK, []string{"ok      root: " + root}, nil},
		{"no root", "run.bundle", exitFail, []string{"ok      root: self-consistent only", root}, []string{"choir: error: self-consistent only", "hint: give the root's fingerprint with --root"}},
		{"another root", "run.bundle --root " + other, exitFail, []string{"FAILED  root: the bundle's root is " + root + ", not " + other, "ok      signatures"},
			[]string{"run.bundle does not verify: root", "hint: do not rely on this bundle"}},
		{"half a root", "run.bundle --root " + root[:32], exitUsage, nil, []string{"want a fingerprint of 64 hex digits", "hint: "}},
		{"a root of blanks", "run.bundle --root=\u00a0", exitUsage, nil, []string{"want a fingerprint of 64 hex digits"}},
		{"no hex", "run.bundle --root " + strings.Repeat("g", 64), exitUsage, nil, []string{"want a fingerprint of 64 hex digits"}},
		{"a damaged bundle", "damaged.bundle --root " + root, exitFail, []string{"FAILED  format: decode bundle: its checksum does not match: it is damaged or cut"}, []string{"damaged.bundle does not verify: format"}},
		{"a damaged bundle without root", "damaged.bundle", exitFail, []string{"FAILED  format"}, []string{"does not verify: format"}},
		{"a bundle cut short", "cut.bundle --root " + root, exitFail, []string{"FAILED  format: decode bundle: its checksum does not match: it is damaged or cut"}, []string{"does not verify: format"}},
		{"an empty file", "empty --root " + root, exitFail, []string{"FAILED  format: decode bundle: it is not a bundle, or is cut"}, []string{"does not verify: format", "hint: "}},
		{"no bundle", "notes.txt --root " + root, exitFail, []string{"FAILED  format: decode bundle: it is not a bundle, or is cut"}, []string{"does not verify: format", "hint: "}},
		{"no file", "nowhere.bundle --root " + root, exitFail, nil, []string{"choir: error: read bundle: open ", "nowhere.bundle: no such file or directory", "hint: choir audit export FILE writes one"}},
		{"a directory", ". --root " + root, exitFail, nil, []string{"choir: error: read bundle: ", "is a directory"}},
		{"another output", "run.bundle -o xml", exitUsage, nil, []string{"table"}},
		{"nothing", "", exitUsage, nil, []string{"expected", "hint: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := strings.Split(test.args, " ")
			if args[0] != "" {
				args[0] = filepath.Join(dir, args[0])
			} else {
				args = nil
			}
			out, errs, code := choir(t, append([]string{"audit", "verify"}, args...)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			holds(t, "standard output", out, test.out)
			holds(t, "standard error", errs, test.errs)
		})
	}
}

// holds wants each text in what was said, or nothing said if there is none.
func holds(t *testing.T, where, said string, want []string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(said, w) {
			t.Errorf("%s is %q, want something with %q", where, said, w)
		}
	}
	if len(want) == 0 && where == "standard error" && said != "" {
		t.Errorf("%s is %q, want nothing", where, said)
	}
}

// Whatever the outcome, standard output is exactly one JSON object, or nothing if the file cannot be read.
func TestAuditVerifyJSON(t *testing.T) {
	dir := t.TempDir()
	bundle, root := foundation(t)
	file, text := filepath.Join(dir, "run.bundle"), filepath.Join(dir, "notes.txt")
	for name, content := range map[string][]byte{file: bundle, text: []byte("all is well")} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type object struct {
		OK      bool   `json:"ok"`
		Self    bool   `json:"self_consistent_only"`
		Cluster string `json:"cluster"`
		Records int    `json:"records"`
		Rounds  int    `json:"rounds"`
		Checks  []struct {
			Name   string `json:"name"`
			OK     bool   `json:"ok"`
			Detail string `json:"detail"`
		} `json:"checks"`
		Roots    []audit.RootReport `json:"roots"`
		Officers []string           `json:"officers"`
	}
	for name, test := range map[string]struct {
		args   []string
		code   int
		want   object // but for the checks
		checks int
	}{
		"verified":        {[]string{file, "--root", root}, exitOK, object{OK: true, Cluster: "shop", Records: 1}, 5},
		"self-consistent": {[]string{file}, exitFail, object{Self: true, Cluster: "shop", Records: 1}, 5},
		"another root":    {[]string{file, "--root", strings.Repeat("0", 64)}, exitFail, object{Cluster: "shop", Records: 1}, 5},
		"no bundle":       {[]string{text}, exitFail, object{}, 1},
	} {
		out, errs, code := choir(t, append([]string{"audit", "verify", "-o", "json"}, test.args...)...)
		d := json.NewDecoder(strings.NewReader(out))
		d.DisallowUnknownFields()
		var got object
		if err := d.Decode(&got); err != nil || code != test.code || (errs == "") != (code == exitOK) {
			t.Errorf("%s: exit code %d, %v: %s%s", name, code, err, out, errs)
		}
		if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: more than one object: %v", name, err)
		}
		if len(got.Checks) != test.checks || got.Checks[0].Name != "format" || got.Checks[0].OK != (test.checks == 5) || got.Checks[0].Detail == "" {
			t.Errorf("%s: checks %+v", name, got.Checks)
		}
		if got.OK != test.want.OK || got.Self != test.want.Self || got.Cluster != test.want.Cluster || got.Records != test.want.Records || got.Rounds != 0 {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
	if out, _, code := choir(t, "audit", "verify", "-o", "json", filepath.Join(dir, "nowhere")); out != "" || code != exitFail {
		t.Errorf("no file: exit code %d, standard output %q", code, out)
	}
}

// A large file that is no bundle, or only begins like one, is refused without being held in memory.
func TestAuditVerifyOfALargeFile(t *testing.T) {
	for name, c := range map[string]struct {
		begin string
		size  int64
	}{
		"a gigabyte of zeros":                {"", 1 << 30},
		"zeros behind a bundle's first line": {"choir-bundle-1\n", 1 << 28},
	} {
		path := filepath.Join(t.TempDir(), "large")
		if err := os.WriteFile(path, []byte(c.begin), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, c.size); err != nil {
			t.Skipf("no sparse files here: %v", err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out, errs, code := choir(t, "audit", "verify", path)
		runtime.ReadMemStats(&after)
		if code != exitFail || !strings.Contains(out, "FAILED  format: decode bundle: it") || !strings.Contains(errs, "does not verify: format") {
			t.Errorf("%s: exit code %d: %s%s", name, code, out, errs)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
}
