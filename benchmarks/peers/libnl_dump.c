/* The route cache of libnl, as a peer of bench-cache: fills it from the kernel and looks one route up.
 *
 *   libnl_dump 4|6    prints the seconds from before the dump until a route was found in the cache, and the routes
 */
#include <netlink/netlink.h>
#include <netlink/route/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	int family = argc > 1 && atoi(argv[1]) == 6 ? AF_INET6 : AF_INET;
	struct nl_sock *sock = nl_socket_alloc();
	struct nl_cache *cache;
	double before;

	if (!sock || nl_connect(sock, NETLINK_ROUTE) < 0)
		return 1;
	before = now();
	if (rtnl_route_alloc_cache(sock, family, 0, &cache) < 0 || !nl_cache_get_first(cache))
		return 1;
	printf("%.9f %d\n", now() - before, nl_cache_nitems(cache));
	return 0;
}
