//go:build linux

package live_test

import (
	"fmt"
	"math/rand"
	"os/exec"
	"strings"
)

const schemaText = `{"name":"shop","columns":[{"name":"pages","kind":"numeric","min":0,"max":1000},{"name":"minutes","kind":"numeric","min":0,"max":1000},{"name":"weekend","kind":"boolean"},{"name":"purchase","kind":"boolean","required":true}],"label":"purchase","unit":"session"}`

func (s *site) temporary(node string, seed, rows int) {
	rng := rand.New(rand.NewSource(int64(seed)))
	var b strings.Builder
	b.WriteString("pages,minutes,weekend,purchase\n")
	for range rows {
		p, m := rng.Float64()*30, rng.Float64()*20
		fmt.Fprintf(&b, "%.2f,%.2f,%v,%v\n", p, m, rng.Intn(7) < 2, p+m+rng.NormFloat64()*5 > 25)
	}
	write(s.t, s.path("shop.yaml"), schemaText)
	write(s.t, s.path(node+".csv"), b.String())
	for _, c := range []string{
		"curl -s --unix-socket " + node + "/node.sock -X POST -d @shop.yaml http://node/v1/data/schema",
		"curl -s --unix-socket " + node + "/node.sock -X POST --data-binary @" + node + ".csv 'http://node/v1/data/import?name=" + node + ".csv'",
	} {
		cmd := exec.Command("bash", "-c", c)
		cmd.Dir = s.dir
		out, err := cmd.CombinedOutput()
		s.t.Logf("%s %v", out, err)
	}
}
