// Command rule runs an experiment whose updates are combined by a rule of its own.
package main

import (
	"context"
	"fmt"
	"log"

	"choir.example/fedavg"
	"choir.example/simulate"
)

// middle is, coordinate by coordinate, the middle between the least and the most that anybody says.
type middle struct{}

// Check implements fedavg.Rule: any number of updates will do.
func (middle) Check(updates int) error { return nil }

// Needs implements fedavg.Rule: nothing beside the vectors.
func (middle) Needs() fedavg.RuleNeeds { return fedavg.RuleNeeds{} }

// Combine implements fedavg.Rule.
func (middle) Combine(c *fedavg.Combination) error {
	for k := range c.Out {
		least, most := c.Vectors[0][k], c.Vectors[0][k]
		for _, v := range c.Vectors {
			least, most = min(least, v[k]), max(most, v[k])
		}
		c.Out[k] = (float64(least) + float64(most)) / 2
	}
	return nil
}

func main() {
	quick, _ := simulate.BuiltinNamed("quick")
	quick.Own.Rule = middle{}
	r, err := simulate.Run(context.Background(), quick.Experiment, simulate.RunConfig{Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("accuracy %.4f\n", r.Final.Accuracy)
}
