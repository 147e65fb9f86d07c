/* The floor of bench_latency: a C program that waits with epoll for route notifications and does nothing
 * with them but take the time.
 *
 *   route_epoll    prints "ready", then for every RTM_DELROUTE of table main one line: the time at which
 *                  recv() returned, CLOCK_MONOTONIC in nanoseconds. Ends when its standard input does.
 */
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	struct epoll_event event = { .events = EPOLLIN }, ended = { .events = EPOLLIN | EPOLLHUP };
	char buffer[65536];
	int group = RTNLGRP_IPV4_ROUTE;
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE);
	int poll = epoll_create1(0);

	event.data.fd = sock;
	ended.data.fd = 0;
	if (sock < 0 || poll < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(sock, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) ||
	    epoll_ctl(poll, EPOLL_CTL_ADD, sock, &event) || epoll_ctl(poll, EPOLL_CTL_ADD, 0, &ended)) {
		perror("route_epoll");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event ready;
		ssize_t length;

		if (epoll_wait(poll, &ready, 1, -1) != 1)
			continue;
		if (ready.data.fd == 0)
			return 0;
		while ((length = recv(sock, buffer, sizeof(buffer), 0)) > 0) {
			struct nlmsghdr *header = (struct nlmsghdr *)buffer;
			struct timespec now;

			clock_gettime(CLOCK_MONOTONIC, &now);
			if (NLMSG_OK(header, length) && header->nlmsg_type == RTM_DELROUTE &&
			    ((struct rtmsg *)NLMSG_DATA(header))->rtm_table == RT_TABLE_MAIN) {
				printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
				fflush(stdout);
			}
		}
	}
}
