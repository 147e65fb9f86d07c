// The route list of github.com/vishvananda/netlink, as a peer of bench-cache.
//
//	netlink_dump 4|6    prints the seconds from before the dump until all routes are a slice, and the routes
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
)

func main() {
	family := netlink.FAMILY_V4
	if len(os.Args) > 1 && os.Args[1] == "6" {
		family = netlink.FAMILY_V6
	}
	before := time.Now()
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%.9f %d\n", time.Since(before).Seconds(), len(routes))
}
