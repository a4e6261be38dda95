package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts wait more than they compute: some run at once, unless -parallel says otherwise.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil { // the command line is read afterwards
		panic(err)
	}
	testscript.Main(m, map[string]func(){"choir": cheap, "program": main})
}

// cheap is main, but for the second that scrypt takes for each passphrase: the scripts open keys a hundred times.
// strength.txtar runs main itself.
func cheap() {
	const work = 4
	os.Exit(process(&terminal{out: os.Stdout, err: os.Stderr, work: work}))
}

// Each file in testdata/script tells one story in commands, as separate processes of this program.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USER", "ada")
			return os.WriteFile(env.WorkDir+"/pass", []byte("many voices, one song\n"), 0o600)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ports": ports, "fill": fill, "until": until, "capture": capture,
		},
	})
}

// ports NAME... sets variables to free ports on loopback.
func ports(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Check(l.Close())
		ts.Setenv(name, port)
	}
}

// fill FILE... replaces $VARIABLES in files.
func fill(ts *testscript.TestScript, _ bool, files []string) {
	for _, name := range files {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// until REGEXP COMMAND... repeats a command until its output, standard error included, matches. What it waits for happens
// in other processes, and the commands are all that shows it: there is nothing to be woken by, so it asks again.
func until(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	var said string
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); {
		start := time.Now()
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		for _, key := range []string{"HOME", "PATH", "USER", "TMPDIR", "CHOIR_CONTEXT", "CHOIR_NODE", "CHOIR_PASSPHRASE_FILE"} {
			if value := ts.Getenv(key); value != "" {
				cmd.Env = append(cmd.Env, key+"="+value)
			}
		}
		out, _ := cmd.CombinedOutput() // what it says is what matters
		if said = string(out); want.MatchString(said) {
			return
		}
		time.Sleep(max(100*time.Millisecond, 4*time.Since(start))) // the processors are for those it waits for
	}
	ts.Fatalf("%s never printed %q; last it said\n%s", strings.Join(args[1:], " "), args[0], said)
}

// capture NAME FILE REGEXP sets a variable to the first group that matches in a file, stdout or stderr.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile("(?m)" + args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if m == nil {
		ts.Fatalf("%s holds nothing like %q", args[1], args[2])
	}
	ts.Setenv(args[0], strings.TrimSpace(m[1]))
}
