package coordinator

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Most tests here wait, for elections, retries and time-outs, rather than compute: more of them run at once than there
// are processors, unless -parallel says otherwise. Replicas whose leader is to stay, or be missed within seconds, are tested
// before them, one by one. What a coordinator starts ends with it: after all tests no goroutine is left.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil { // the command line is read afterwards
		panic(err)
	}
	code := m.Run()
	if err := left(); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: goroutines are left after all tests, the stacks say of which: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// left finds goroutines that were not waited for. Memberlist's own ones end with their probe: within a second, or several
// when many have failed.
func left() (err error) {
	for range 12 { // Find itself waits for about a second
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}
