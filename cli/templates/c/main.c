// A CGI program (RFC 3875): what is known of the request is in the environment
// (REQUEST_METHOD, PATH_INFO, QUERY_STRING, HTTP_…), its body is on standard
// input, and the answer goes to standard output. Standard error is the log.
#include <stdio.h>

int main(void) {
    fputs("Content-Type: text/plain\r\n\r\n", stdout);
    fputs("Hello!\n", stdout);
    return 0;
}
